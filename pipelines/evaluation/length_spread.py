"""Say how long the vectors are, and warn where a few of them are much longer than the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LONG = 10.0
"""The longest vector is far out where it is more than so many times as long as the median."""

SHARES = {"shortest": 0, "1%": 1, "median": 50, "99%": 99, "longest": 100}
"""The percentiles that are shown."""


def length_spread(vectors: NDArray[np.float32]) -> dict[str, float]:
    """The percentiles of the lengths of vectors [n, d]; 0 where there are none."""
    lengths = np.linalg.norm(vectors, axis=1) if len(vectors) else np.zeros(1)
    return {name: float(np.percentile(lengths, share)) for name, share in SHARES.items()}


def spread_lines(lengths: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The spread of each side in words, and a warning where items are far out."""
    lines = []
    for side, spread in lengths.items():
        shown = ", ".join(f"{name} {length:.3g}" for name, length in spread.items())
        lines.append(f"lengths of {side} vectors: {shown}")
    items = lengths["item"]
    if items["longest"] > LONG * items["median"] > 0:
        times = items["longest"] / items["median"]
        lines.append(
            f"warning: the longest item vector is {times:.0f} times as long as the median, so that "
            "a few items lead most rankings; scale numeric features with `robust` or cut them into "
            "buckets"
        )
    return lines
