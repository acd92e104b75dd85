"""The split on a time line: how many interactions each part has by time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.data.blocks import PARTS, Part
from pipelines.data.prepare import Prepared
from pipelines.results import TimeLine

STRETCHES = 40


def time_line(prepared: Prepared) -> TimeLine | None:
    """Count the positives of each part by stretch of time; None where they have no times."""
    if not prepared.stored().has_times:
        return None
    ends = [(times.min(), times.max()) for times in _times(prepared, *PARTS)]
    if not ends:
        return None
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    edges = np.linspace(low, high if high > low else low + 1.0, STRETCHES + 1)
    counts = {}
    for part in PARTS:
        found = np.zeros(STRETCHES, dtype=np.int64)
        for times in _times(prepared, part):
            found += np.histogram(times, edges)[0]
        counts[str(part)] = found.tolist()
    return TimeLine(edges=edges.tolist(), parts=counts)


def _times(prepared: Prepared, *parts: Part) -> Iterator[NDArray[np.float64]]:
    """The times of some parts, a block at a time."""
    stored = prepared.stored(*parts)
    for number in range(stored.n_blocks):
        _, times = stored.item_times(number)
        times = times[np.isfinite(times)]
        if len(times):
            yield times
