"""An exact index that gets a tree once many vectors have been put in.

A version with few targets is searched exactly. Where so many are put in that one published with
them would get a tree (`choose_settings`), one is built here too, on a thread of its own, and used
only if it finds what the latest queries have as their exact neighbours. Equal vectors share a
place, as what was put in has no vector of its id and so often that of another; where few differ,
each of those is scored, and there is no tree.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from serving.search.equal_vectors import LivePlaces, Places
from serving.search.index import Found, Rows, Vectors, search_rows
from serving.search.live_index import LiveExactIndex, LiveIndex
from serving.search.live_shells import LiveShells
from serving.search.scann_index import (
    FEWEST_FOR_TREE,
    ScannIndex,
    ScannSettings,
    choose_settings,
)
from serving.search.shells import Shell

RECALL = 0.99
"""The share of the exact neighbours of the latest queries that a tree has to find."""

RECALL_K = 100
LONGEST = 0.05
"""The share of the vectors, the longest, that are scored beside the tree: what most queries look
for where lengths differ much, and what a tree of all would lose (decision 14)."""
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
        self._tree: LiveIndex | None = None
        self._asked = np.empty((0, vectors.shape[1]), dtype=np.float32)
        self._next_at = FEWEST_FOR_TREE
        """From how many vectors on to build a tree."""
        self._grew = False
        """Whether anything was put in: what was published exact stays so."""
        self._lock = Lock()
        self._building: Thread | None = None
        self._built: LiveIndex | None = None
        self._changed: list[Rows] = []
        """The rows that were put in or removed since the tree that is being built was begun."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return self._exact.size

    @property
    def has_tree(self) -> bool:
        """Whether it searches a tree, or equal vectors once."""
        return self._tree is not None

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`."""
        with self._lock:
            self._remember(queries)
            self._adopt()
            self._consider()
            tree = self._tree
        return (self._exact if tree is None else tree).search(queries, k)

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
            self._built = build_quicker(vectors, rows, asked)
        except Exception:
            LOG.exception("no tree was built; every vector is scored")

    def _adopt(self) -> None:
        """Take a tree that has been built, with what has changed since."""
        if self._building is None or self._building.is_alive():
            return
        if self._built is not None:
            for rows in self._changed:
                _follow(self._built, self._exact, rows)
            self._tree = self._built
        self._building, self._built, self._changed = None, None, []


def build_quicker(vectors: Vectors, rows: Rows, queries: Vectors) -> LiveIndex | None:
    """Build what finds rows [n] of vectors [n, d] with less work than scoring each; None if none.

    Args:
        vectors: what to find.
        rows: what each is known by.
        queries: [m, d], whose exact neighbours must be found.
    """
    places = Places.of(vectors)
    if places is None:
        return build_trees(vectors, rows, queries)
    distinct = vectors[places.rows[places.starts[:-1]]]
    trees = build_trees(distinct, np.arange(len(distinct)), queries)
    known = Places(places.starts, rows[places.rows])
    return LivePlaces(LiveExactIndex(distinct) if trees is None else trees, known)


def build_trees(vectors: Vectors, rows: Rows, queries: Vectors) -> LiveShells | None:
    """Build a tree, beside the longest vectors, that finds the exact neighbours of queries [n, d].

    None where there are too few vectors for one, or it finds too little.
    """
    settings = choose_settings(len(vectors), recall_k=RECALL_K)
    if settings.num_leaves is None:
        return None
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(-lengths, kind="stable")
    few, rest = np.split(order, [math.ceil(LONGEST * len(order))])
    every = ScannSettings(num_leaves=None, reorder=RECALL_K, recall_k=RECALL_K)
    longest = Shell(ScannIndex.build(vectors[few], every), few, float(lengths[few[0]]))
    tree = ScannIndex.build(vectors[rest], settings)
    true, _ = search_rows(vectors, queries, RECALL_K)
    for share in SHARES:
        leaves = max(1, round(share * settings.num_leaves))
        chosen = dataclasses.replace(
            settings, leaves_to_search=leaves, reorder=REORDERED * RECALL_K
        )
        shells = (
            longest,
            Shell(dataclasses.replace(tree, settings=chosen), rest, float(lengths[rest[0]])),
        )
        recall = _recall(LiveShells(shells).search(queries, RECALL_K)[0], true)
        if recall >= RECALL:
            facts = {"vectors": len(vectors), "leaves": leaves, "recall": round(recall, 4)}
            LOG.info("a tree was built for what was put in", extra=facts)
            known = (dataclasses.replace(shell, rows=rows[shell.rows]) for shell in shells)
            return LiveShells(tuple(known))
    LOG.warning("the tree that was built finds too little", extra={"recall": round(recall, 4)})
    return None


def _recall(found: Rows, true: NDArray[np.int64]) -> float:
    """The share of the true rows [n, k] that were found."""
    shares = [np.isin(of_one, found[n]).mean() for n, of_one in enumerate(true)]
    return float(np.mean(shares))


def _follow(tree: LiveIndex, exact: LiveExactIndex, rows: Rows) -> None:
    """Have a tree hold of some rows what the exact index does."""
    if not len(rows):
        return
    vectors, present = exact.snapshot()
    here = present[rows]
    tree.remove(rows[~here])
    tree.put(rows[here], vectors[rows[here]])
