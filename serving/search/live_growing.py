"""An exact index that gets a tree once many vectors have been put in.

A version with few targets is searched exactly. Where so many are put in that one published with
them would get a tree (`choose_settings`), one is built here too, on a thread of its own, and used
only if it finds what the latest queries have as their exact neighbours.
"""

from __future__ import annotations

import dataclasses
import logging
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from serving.search.index import Found, Rows, Vectors, search_rows
from serving.search.live_index import LiveExactIndex, LiveScannIndex
from serving.search.scann_index import FEWEST_FOR_TREE, ScannIndex, choose_settings

RECALL = 0.99
"""The share of the exact neighbours of the latest queries that a tree has to find."""

RECALL_K = 100
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""The shares of the leaves to search that are tried, the smallest that suffices is taken."""
REORDERED = 8
"""Times k, the vectors of those leaves that are scored exactly."""

REMEMBERED, ENOUGH = 256, 64
"""How many of the latest queries are kept, and how many are needed to judge a tree."""

GROWTH = 2
"""A tree is built anew when there are this many times as many vectors as it was built from."""

LOG = logging.getLogger(__name__)


class LiveGrowingIndex:
    """Scores every vector, or searches a tree that was found to be as good.

    Queries may come from several threads; changes need it to themselves.
    """

    def __init__(self, vectors: Vectors) -> None:
        """Start with `vectors` [size, d]."""
        self._exact = LiveExactIndex(vectors)
        self._tree: LiveScannIndex | None = None
        self._asked = np.empty((0, vectors.shape[1]), dtype=np.float32)
        self._next_at = FEWEST_FOR_TREE
        """From how many vectors on to build a tree."""
        self._grew = False
        """Whether anything was put in: what was published exact stays so."""
        self._lock = Lock()
        self._building: Thread | None = None
        self._built: LiveScannIndex | None = None
        self._changed: list[Rows] = []
        """The rows that were put in or removed since the tree that is being built was begun."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return self._exact.size

    @property
    def has_tree(self) -> bool:
        """Whether it searches a tree."""
        return self._tree is not None

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`."""
        with self._lock:
            self._remember(queries)
            self._adopt()
            self._consider()
            tree = self._tree
        if tree is None or k > RECALL_K * GROWTH:
            return self._exact.search(queries, k)
        return tree.search(queries, k)

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`."""
        self._exact.put(rows, vectors)
        self._grew = True
        self._note(rows)

    def remove(self, rows: Rows) -> None:
        """See `LiveIndex.remove`."""
        self._exact.remove(rows)
        self._note(rows)

    def settle(self) -> None:
        """Wait until no tree is being built."""
        if self._building is not None:
            self._building.join()

    def _note(self, rows: Rows) -> None:
        with self._lock:
            if self._building is not None:
                self._changed.append(rows)
            if self._tree is not None:
                _follow(self._tree, self._exact, rows)

    def _remember(self, queries: Vectors) -> None:
        if self._grew and self.size >= self._next_at // GROWTH:
            self._asked = np.concatenate([self._asked, queries])[-REMEMBERED:]

    def _consider(self) -> None:
        """Begin to build a tree, if there are many vectors by now."""
        is_due = self._grew and self.size >= self._next_at and len(self._asked) >= ENOUGH
        if self._building is None and is_due:
            self._next_at = GROWTH * self.size
            vectors, present = self._exact.snapshot()
            rows = np.flatnonzero(present)
            given = vectors[rows], rows, self._asked.copy()
            self._building = Thread(target=self._build, args=given, daemon=True)
            self._building.start()

    def _build(self, vectors: Vectors, rows: Rows, asked: Vectors) -> None:
        try:
            index = build_tree(vectors, asked)
        except Exception:
            LOG.exception("no tree was built; every vector is scored")
            return
        if index is not None:
            self._built = LiveScannIndex(index, rows)

    def _adopt(self) -> None:
        """Take a tree that has been built, with what has changed since."""
        if self._building is None or self._building.is_alive():
            return
        if self._built is not None:
            for rows in self._changed:
                _follow(self._built, self._exact, rows)
            self._tree = self._built
        self._building, self._built, self._changed = None, None, []


def build_tree(vectors: Vectors, queries: Vectors) -> ScannIndex | None:
    """Build a tree that finds the exact neighbours of queries [n, d]; None if none does."""
    settings = choose_settings(len(vectors), recall_k=RECALL_K)
    if settings.num_leaves is None:
        return None
    index = ScannIndex.build(vectors, settings)
    true, _ = search_rows(vectors, queries, RECALL_K)
    for share in SHARES:
        leaves = max(1, round(share * settings.num_leaves))
        chosen = dataclasses.replace(
            settings, leaves_to_search=leaves, reorder=REORDERED * RECALL_K
        )
        tried = dataclasses.replace(index, settings=chosen)
        recall = _recall(tried.search(queries, RECALL_K)[0], true)
        if recall >= RECALL:
            facts = {"vectors": len(vectors), "leaves": leaves, "recall": round(recall, 4)}
            LOG.info("a tree was built for what was put in", extra=facts)
            return tried
    LOG.warning("the tree that was built finds too little", extra={"recall": round(recall, 4)})
    return None


def _recall(found: Rows, true: NDArray[np.int64]) -> float:
    """The share of the true rows [n, k] that were found."""
    shares = [np.isin(of_one, found[n]).mean() for n, of_one in enumerate(true)]
    return float(np.mean(shares))


def _follow(tree: LiveScannIndex, exact: LiveExactIndex, rows: Rows) -> None:
    """Have a tree hold of some rows what the exact index does."""
    if not len(rows):
        return
    vectors, present = exact.snapshot()
    here = present[rows]
    tree.remove(rows[~here])
    tree.put(rows[here], vectors[rows[here]])
