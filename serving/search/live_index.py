"""Indexes whose vectors change while they answer, known by rows that never change."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.search.growing_array import GrowingArray, RowNumbers
from serving.search.index import Found, Index, Rows, Vectors, search_rows
from serving.search.scann_index import ScannIndex, ScannSettings, search_all_if_short


class LiveIndex(Index, Protocol):
    """An index that can be changed, by the thread that searches it."""

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """Add vectors [n, d], or replace those of rows that are there; no row comes twice.

        New rows follow the highest that ever was, without a gap.
        """
        ...

    def remove(self, rows: Rows) -> None:
        """Let rows no longer be found; those that are not there do no harm."""
        ...


class LiveExactIndex:
    """Scores every vector."""

    def __init__(self, vectors: Vectors) -> None:
        """Start with `vectors` [size, d]."""
        self._vectors = GrowingArray(vectors)
        self._is_in = GrowingArray(np.ones(len(vectors), dtype=np.bool_))

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return int(np.count_nonzero(self._is_in.values))

    def search(self, queries: Vectors, k: int) -> Found:
        """Find the min(k, size) rows of the highest inner products; see `Index.search`."""
        size, present = self.size, self._is_in.values
        if size == len(self._vectors):
            return search_rows(self._vectors.values, queries, k)
        return search_rows(self._vectors.values, queries, min(k, size), present=present)

    def snapshot(self) -> tuple[Vectors, NDArray[np.bool_]]:
        """The vectors by row, [n, d], and which of them are there; both are not to be changed."""
        return self._vectors.values, self._is_in.values

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`."""
        self._vectors.put(rows, vectors)
        self._is_in.put(rows, True)

    def remove(self, rows: Rows) -> None:
        """See `LiveIndex.remove`."""
        self._is_in.put(rows, False)


class LiveScannIndex:
    """Searches by an index of ScaNN's.

    ScaNN numbers what it holds from 0 on and, when one is deleted, gives its number to the last.
    These numbers are the slots.
    """

    def __init__(self, index: ScannIndex, rows: Rows | None = None) -> None:
        """Take over `index`, which nobody else may change.

        Args:
            index: vectors by slot.
            rows: the row in each slot; None where slot and row are the same.
        """
        self._index = index
        self._rows = None if rows is None else GrowingArray(rows)
        self._slots: RowNumbers | None = None
        """The slot of each row, -1 for a row that is not there; made when it is first needed."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return self._index.size

    @property
    def settings(self) -> ScannSettings:
        """How it was built, and how much of it is searched."""
        return self._index.settings

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`."""
        return search_all_if_short(self.search_once, queries, k)

    def search_once(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """See `ScannIndex.search_once`."""
        return self._named(*self._index.search_once(queries, k, all_leaves=all_leaves))

    def search_checked(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """See `ScannIndex.search_checked`."""
        return self._named(*self._index.search_checked(queries, k, all_leaves=all_leaves))

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`."""
        row_in, slot_of = self._numbers()
        slots = slot_of.of(rows)
        old, new = slots >= 0, slots < 0
        self._index.upsert(slots[old], vectors[old])
        added = self.size + np.arange(np.count_nonzero(new))
        self._index.upsert(np.full(len(added), -1), vectors[new])
        row_in.put(added, rows[new])
        slot_of.put(rows[new], added)

    def remove(self, rows: Rows) -> None:
        """See `LiveIndex.remove`."""
        row_in, slot_of = self._numbers()
        for row in rows:
            (slot,), last = slot_of.of(np.array([row])), self.size - 1
            if slot < 0:
                continue
            self._index.delete(int(slot))
            moved = row_in.values[[last]]
            row_in.put(np.array([slot]), moved)
            slot_of.put(moved, slot)
            slot_of.put(np.array([row]), -1)

    def _named(self, slots: Rows, scores: Vectors) -> Found:
        """The rows in slots that were found."""
        if self._rows is None:
            return slots, scores
        rows = self._rows.values.take(slots, mode="clip")  # which checks nothing
        if slots.min(initial=0) < 0:
            rows[slots < 0] = -1
        return rows, scores

    def _numbers(self) -> tuple[GrowingArray[np.int64], RowNumbers]:
        """What row is in each slot, and the slot of each row."""
        if self._rows is None:
            self._rows = GrowingArray(np.arange(self.size))
        if self._slots is None:
            self._slots = RowNumbers.inverse(self._rows.values)
        return self._rows, self._slots
