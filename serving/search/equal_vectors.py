"""Equal vectors share a place: an index holds one of them, and answers with all of their rows.

Items that training never saw often have the same features, and so the same vector. Held a thousand
times, it would take the leaves and the codes of an index for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.search.growing_array import GrowingArray, RowNumbers
from serving.search.index import Found, Rows, Vectors
from serving.search.live_index import LiveIndex

FEW = 0.05
"""Places are shared where at least this share of the vectors are equal to an earlier one."""

BLOCK = 4096
"""Vectors that are hashed at a time."""

MULTIPLIER, SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
"""Mix the bits of a hash, after FNV-1a and SplitMix64."""


@dataclass(frozen=True, eq=False)
class Places:
    """The rows at each of m places; those of place i are rows[starts[i] : starts[i + 1]]."""

    starts: Rows
    """[m + 1]."""
    rows: Rows
    """[n]."""

    @classmethod
    def of(cls, vectors: Vectors) -> Places | None:
        """Put equal vectors [n, d] at one place; None where (nearly) all differ."""
        _, place = np.unique(_hashes(vectors), return_inverse=True)
        counts = np.bincount(place)
        if len(vectors) - len(counts) < FEW * len(vectors):
            return None
        order = np.argsort(place, kind="stable")
        return cls(np.concatenate([[0], np.cumsum(counts)]), order)

    def of_rows(self, rows: Rows) -> Rows:
        """The places of rows [...]."""
        place_of = np.empty_like(self.rows)
        place_of[self.rows] = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        places: Rows = place_of[rows]
        return places


class LivePlaces:
    """An index of places, which are searched, and of the rows at each, which are found."""

    def __init__(self, index: LiveIndex, places: Places) -> None:
        """Take over `index`, whose rows are the numbers of `places`."""
        self._index = index
        self._starts, self._counts = (
            GrowingArray(places.starts[:-1]),
            GrowingArray(np.diff(places.starts)),
        )
        self._rows = GrowingArray(places.rows)
        self._size = len(places.rows)
        place = np.repeat(np.arange(len(self._starts)), self._counts.values)
        self._place_of = RowNumbers(np.empty(0, dtype=np.int64))
        self._place_of.put(places.rows, place)

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return self._size

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`."""
        places, scores = self._index.search(queries, k)
        return expand(
            places,
            scores,
            starts=self._starts.values,
            counts=self._counts.values,
            at=self._rows.values,
            k=min(k, self.size),
        )

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`; a vector that is put in has a place of its own."""
        place = self._place_of.of(rows)
        alone = (place >= 0) & (self._counts.values[place] == 1)
        self.remove(rows[~alone])
        place[~alone] = len(self._starts) + np.arange(np.count_nonzero(~alone))
        self._index.put(place, vectors)
        new = place[~alone]
        self._starts.put(new, len(self._rows) + np.arange(len(new)))
        self._counts.put(new, 1)
        self._rows.put(self._starts.values[new], rows[~alone])
        self._place_of.put(rows[~alone], new)
        self._size += len(new)

    def remove(self, rows: Rows) -> None:
        """See `LiveIndex.remove`."""
        emptied = []
        for row, place in zip(rows, self._place_of.of(rows), strict=True):
            if place < 0:
                continue
            start, count = self._starts.values[place], self._counts.values[place]
            at = np.arange(start, start + count)
            others = self._rows.values[at][self._rows.values[at] != row]
            self._rows.put(at[:-1], others)
            self._counts.put(np.array([place]), count - 1)
            self._size -= 1
            self._place_of.put(np.array([row]), -1)
            if not len(others):
                emptied.append(place)
        self._index.remove(np.array(emptied, dtype=np.int64))


def expand(places: Rows, scores: Vectors, *, starts: Rows, counts: Rows, at: Rows, k: int) -> Found:
    """Name the rows at the places found [n, m], k for each query: there are so many at least.

    Args:
        places: best first.
        scores: of these.
        starts: where the rows of each place begin in `at`.
        counts: how many they are.
        at: rows, one place's after another's.
        k: how many rows.
    """
    ends = np.minimum(np.cumsum(np.where(places < 0, 0, counts[places]), axis=1), k)
    taken = np.diff(ends, axis=1, prepend=0).ravel()
    rows = at[_ranges(starts[places.ravel()], taken)]
    return rows.reshape(len(places), k), np.repeat(scores.ravel(), taken).reshape(len(places), k)


def _hashes(vectors: Vectors) -> NDArray[np.uint64]:
    """64 bits of each vector [n, d]; two that differ share them once in 10^19 pairs."""
    hashes = np.full(len(vectors), 14695981039346656037, dtype=np.uint64)
    for start in range(0, len(vectors), BLOCK):
        part = hashes[start : start + BLOCK]
        bits = (vectors[start : start + BLOCK] + np.float32(0)).view(np.uint32)  # -0.0 is 0.0
        for column in bits.T:
            part ^= column
            part *= MULTIPLIER
            part ^= part >> SHIFT
    return hashes


def _ranges(starts: Rows, sizes: Rows) -> Rows:
    """The numbers of several ranges, one after another."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
