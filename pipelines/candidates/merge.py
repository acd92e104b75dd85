"""Merge: what several channels list for each user, as one list without repetitions.

The channels take turns in order of priority. Each takes the best of its list that no channel before
it took, up to its quota. Places that are then left, because a channel had fewer or the quotas are
fewer than k, go to the next best of u2i, and then of popularity. A user's candidates come in order
of the channels, and each channel's in order of its own scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.candidates.settings import Channel
from serving.search.index import STRIDE, Found, Rows

FILLERS = ("u2i", "popularity")
"""The channels, in this order, that fill what others leave, as far as they are on."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Merged:
    """The candidates of n users, one after another, [m]."""

    places: NDArray[np.int64]
    """The users' places, 0 to n - 1, in order."""
    rows: Rows
    scores: NDArray[np.float32]
    ranks: NDArray[np.int32]
    """From 1 on for each user."""
    channels: NDArray[np.int8]
    """Which channel of the list of channels gave it."""


def depth_of(channels: Sequence[Channel], position: int, *, k: int) -> int:
    """How many a channel must list, so that what earlier ones take cannot leave it short."""
    if channels[position].name in FILLERS:
        return k
    return min(k, sum(channel.quota for channel in channels[: position + 1]))


def merge(channels: Sequence[Channel], lists: Sequence[Found], *, k: int) -> Merged:
    """Choose each user's candidates, at most k.

    Args:
        channels: in order of priority; their quotas are k at most together.
        lists: of each channel, rows [n, m] and scores, best first, without repetitions; -1 and
            -inf pad. `depth_of` says how many suffice.
        k: how many at most.
    """
    taken: list[NDArray[np.int64]] = []
    chosen: list[Mask] = []
    for channel, (rows, _) in zip(channels, lists, strict=True):
        picked = _first(_is_new(rows, taken), channel.quota)
        chosen.append(picked)
        taken.append(_keys(rows)[picked])
    for name in FILLERS:
        for position, channel in enumerate(channels):
            room = k - sum(picked.sum(axis=1) for picked in chosen)
            if channel.name == name and room.any():
                rows = lists[position][0]
                more = _first(_is_new(rows, taken), room[:, np.newaxis])
                chosen[position] = chosen[position] | more
                taken.append(_keys(rows)[more])
    return _flatten(lists, chosen)


def _is_new(rows: Rows, taken: Sequence[NDArray[np.int64]]) -> Mask:
    """Which candidates [n, m] there are that nobody took."""
    found = rows >= 0
    if any(map(len, taken)):
        keys = np.sort(np.concatenate(taken))
        own = _keys(rows)
        places = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
        found &= keys[places] != own
    return found


def _first(flags: Mask, count: int | NDArray[np.int64]) -> Mask:
    """The first `count` of each row's flags that are up."""
    first: Mask = flags & (np.cumsum(flags, axis=1) <= count)
    return first


def _keys(rows: Rows) -> NDArray[np.int64]:
    """A number for each pair of a user's place and a row."""
    keys: NDArray[np.int64] = np.arange(len(rows))[:, np.newaxis] * STRIDE + rows
    return keys


def _flatten(lists: Sequence[Found], chosen: Sequence[Mask]) -> Merged:
    """Put what was chosen in order of users, channels and scores."""
    picked = np.concatenate(chosen, axis=1)
    widths = [mask.shape[1] for mask in chosen]
    channels = np.repeat(np.arange(len(lists), dtype=np.int8), widths)
    places, columns = np.nonzero(picked)
    counts = np.bincount(places, minlength=len(picked))
    starts = np.cumsum(counts) - counts
    return Merged(
        places=places,
        rows=np.concatenate([rows for rows, _ in lists], axis=1)[picked],
        scores=np.concatenate([scores for _, scores in lists], axis=1)[picked],
        ranks=(np.arange(len(places)) - starts[places] + 1).astype(np.int32),
        channels=channels[columns],
    )
