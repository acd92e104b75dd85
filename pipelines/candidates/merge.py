"""Merge the lists of several channels into one list for each user, without duplicates.

In order of priority, each channel takes its best items that no earlier channel took, up to its
quota. Where places are left, because a channel had too few items or the quotas sum to less than k,
the next best items of u2i fill them, and then those of popularity. A user's candidates are in order
of the channels, and within a channel in order of its scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.candidates.settings import Channel
from serving.search.index import STRIDE, Found, Rows, contains

FILLERS = ("u2i", "popularity")
"""The channels that fill the places that are left, in this order, if they are in use."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Merged:
    """The candidates of n users, one user after another; each array is [m]."""

    places: NDArray[np.int64]
    """The users' places, 0 to n - 1, in order."""
    rows: Rows
    scores: NDArray[np.float32]
    ranks: NDArray[np.int32]
    """The rank within the user's list, from 1."""
    channels: NDArray[np.int8]
    """The position of the channel that gave the candidate."""

    def at(self, places: NDArray[np.int64]) -> Merged:
        """The same, of users at other places, ascending."""
        return dataclasses.replace(self, places=places[self.places])

    @classmethod
    def concat(cls, several: Sequence[Merged]) -> Merged:
        """The candidates of all, of whom each is in one alone, in order of the users."""
        columns = {
            column.name: np.concatenate([getattr(one, column.name) for one in several])
            for column in dataclasses.fields(cls)
        }
        order = np.argsort(columns["places"], kind="stable")
        return cls(**{name: values[order] for name, values in columns.items()})


def depth_of(channels: Sequence[Channel], position: int, *, k: int) -> int:
    """How many items a channel must list to fill its quota whatever earlier channels take."""
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
    return flatten(lists, chosen)


def _is_new(rows: Rows, taken: Sequence[NDArray[np.int64]]) -> Mask:
    """Flag the candidates [n, m] that exist and that no channel took."""
    found: Mask = rows >= 0
    if taken:
        found &= ~contains(np.sort(np.concatenate(taken)), _keys(rows))
    return found


def _first(flags: Mask, count: int | NDArray[np.int64]) -> Mask:
    """Keep the first `count` true flags of each row."""
    first: Mask = flags & (np.cumsum(flags, axis=1) <= count)
    return first


def _keys(rows: Rows) -> NDArray[np.int64]:
    """A number for each pair of a user's place and a row."""
    keys: NDArray[np.int64] = np.arange(len(rows))[:, np.newaxis] * STRIDE + rows
    return keys


def flatten(lists: Sequence[Found], chosen: Sequence[Mask]) -> Merged:
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
