"""Count how often items were chosen within windows of time, and what that says of their trend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.store_blocks import StoredInteractions

SHARES = tuple(2.0 ** (-step / 2) for step in range(2, 21))
"""Shares of the interactions that windows hold: from a half to a thousandth, by the root of 2."""

FEWEST = 100
"""The interactions that a window holds at least, to say anything of items."""


FEWEST_OF_ITEM = 5
"""The choices of an item, in a window or in all, that say whether it is chosen more often of late:
how often one of fewer is chosen is hardly known to begin with."""


def window_lengths(stored: StoredInteractions) -> list[float]:
    """Say how long windows are that hold a half to a thousandth of the interactions, longest first.

    As times are of any unit, and interactions come at any rate, lengths follow from the data: from
    the times of the first block, whose users are a random sample of all. None without times.
    """
    if not stored.has_times:
        return []
    times = np.sort(stored.item_times(0)[1])
    total = max(int(stored.item_counts.sum()), 1)
    shares = [share for share in SHARES if share * total >= FEWEST]
    if not len(times) or not shares:
        return []
    lengths = times[-1] - np.quantile(times, [1.0 - share for share in shares])
    return [float(length) for length in dict.fromkeys(lengths.tolist()) if length > 0]


def count_recent(
    stored: StoredInteractions, lengths: Sequence[float]
) -> tuple[float, NDArray[np.int64]]:
    """Count the choices of each item within windows up to the latest interaction.

    Args:
        stored: interactions with times; one block is held at a time.
        lengths: of the windows, in the unit of the times.

    Returns:
        The time of the latest interaction, and the counts [n_windows, n_items].
    """
    blocks = range(stored.n_blocks)
    latest = [times.max(initial=-np.inf) for _, times in map(stored.item_times, blocks)]
    until = float(max(latest))
    counts = np.zeros((len(lengths), stored.shape[1]), dtype=np.int64)
    for items, times in map(stored.item_times, blocks):
        for row, length in enumerate(lengths):
            counts[row] += np.bincount(items[times > until - length], minlength=stored.shape[1])
    return until, counts


def trend_values(recent: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.float32]:
    """The trend of each item: log((n + 1) / (m + 1)), the equation of `towers.features.kinds`.

    0 for an item of fewer than `FEWEST_OF_ITEM` choices.

    Args:
        recent: n, the choices of each item within a window, [n_items].
        total: its choices in all, [n_items]; m is the sum of `recent` times its share of them.
    """
    expected = total * (recent.sum() / max(int(total.sum()), 1))
    trend = np.log1p(recent) - np.log1p(expected)
    is_rare = np.maximum(recent, total) < FEWEST_OF_ITEM
    return np.where(is_rare, 0.0, trend).astype(np.float32)
