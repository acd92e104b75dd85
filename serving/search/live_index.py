"""Indexes whose vectors change while they answer, known by rows that never change."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from serving.search.growing import Growing
from serving.search.index import Found, Index, Rows, Vectors, search_rows
from serving.search.scann_index import ScannIndex, ScannSettings


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

    is_exact = True

    def __init__(self, vectors: Vectors) -> None:
        """Start with `vectors` [size, d]."""
        self._vectors = Growing(vectors)
        self._is_in = Growing(np.ones(len(vectors), dtype=np.bool_))

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return int(np.count_nonzero(self._is_in.values))

    def search(self, queries: Vectors, k: int) -> Found:
        """Find the min(k, size) rows of the highest inner products; see `Index.search`."""
        size = self.size
        if size == len(self._vectors):
            return search_rows(self._vectors.values, queries, k)
        present = np.flatnonzero(self._is_in.values)
        rows, scores = search_rows(self._vectors.values[present], queries, k)
        return present[rows], scores

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
    These numbers are the slots; as long as nothing has changed, slot and row are the same.
    """

    is_exact = False

    def __init__(self, index: ScannIndex) -> None:
        """Take over `index`, which nobody else may change."""
        self._index = index
        self._rows: Growing[np.int64] | None = None
        """The row in each slot."""
        self._slots: Growing[np.int64] | None = None
        """The slot of each row, -1 for a row that was removed."""

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
        slots, scores = self._index.search(queries, k)
        if self._rows is None:
            return slots, scores
        return np.where(slots < 0, -1, self._rows.values[slots]), scores

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`."""
        row_in, slot_of = self._numbers()
        known = rows < len(slot_of)
        slots = np.where(known, slot_of.values[np.where(known, rows, 0)], -1)
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
            slot, last = slot_of.values[row], self.size - 1
            if slot < 0:
                continue
            self._index.delete(int(slot))
            moved = row_in.values[last]
            row_in.put(np.array([slot]), moved)
            slot_of.put(np.array([moved]), slot)
            slot_of.put(np.array([row]), -1)

    def _numbers(self) -> tuple[Growing[np.int64], Growing[np.int64]]:
        """What row is in each slot, and the slot of each row."""
        if self._rows is None or self._slots is None:
            self._rows, self._slots = (Growing(np.arange(self.size)) for _ in range(2))
        return self._rows, self._slots
