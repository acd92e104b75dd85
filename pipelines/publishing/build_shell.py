"""Build the tree of a shell, and measure the ways to search it.

Trees are built in one way after another until one finds enough at a fraction of the cost of scoring
every vector. Few of the queries say so; `Shell.measured` asks all of them for the settings that
are to be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.publishing.choose_effort import Option, cost_us, with_effort
from serving.search import scann_index
from serving.search.index import STRIDE, Rows, Vectors, contains
from serving.search.scann_index import ScannIndex, ScannSettings, Storage

KINDS: tuple[dict[str, float], ...] = (
    {"anisotropic_centres": 2.5},
    {"dimensions_per_block": 1},
    {"dimensions_per_block": 1, "residuals": False},
)
"""How a tree is built: the cheapest to search first, and the surest last."""

GOOD_SHARE = 0.6
"""A tree is good that finds enough at this share of the cost of scoring every vector, or less."""

FEW_NEIGHBOURS = 0.02
"""A shell with a smaller share of all neighbours is built once, good or not, and in few leaves."""

SOME = 4
"""One query of so many is asked to compare one build with another."""

LEAF_SHARES = (0.005, 0.007, 0.01, 0.015, 0.022, 0.033, 0.05, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 1)
"""The shares of the leaves whose search is measured."""

REORDER_FACTORS = (1, 2, 4, 8, 16, 32)
"""The vectors reordered, in multiples of the k that recall is counted over."""

SMALL_SHARE = 1 / 8
"""Of a shell's vectors, what is reordered at most."""

GAIN = 0.001
"""More vectors are no longer reordered where they find this share more, or less."""

EXACT_SHARE = 0.05
"""Shells of up to this share of all vectors may be scored one by one, in float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """Queries, and which vectors of a shell are their exact neighbours."""

    queries: Vectors
    """[n, d]."""
    wanted: Rows
    """[n, k] the places in the shell; -1 for neighbours that are elsewhere."""

    @classmethod
    def of(cls, queries: Vectors, wanted: Rows, rows: Rows, *, n_all: int) -> Asked:
        """What is asked of the shell that has `rows` of `n_all`, whose neighbours are `wanted`."""
        place = np.full(n_all, -1)
        place[rows] = np.arange(len(rows))
        return cls(queries, place[wanted])

    @property
    def some(self) -> Asked:
        """One query of `SOME`."""
        return Asked(self.queries[::SOME], self.wanted[::SOME])

    @property
    def k(self) -> int:
        """The neighbours of a query."""
        return int(self.wanted.shape[1])

    @cached_property
    def present(self) -> NDArray[np.int64]:
        """How many neighbours of each query are here, [n]."""
        present: NDArray[np.int64] = np.count_nonzero(self.wanted >= 0, axis=1)
        return present

    def count(self, rows: Rows) -> NDArray[np.int64]:
        """How many of each query's neighbours are among the rows [n, m]; one twice counts twice."""
        hits = contains(self._pairs, self._numbered(rows))
        counts: NDArray[np.int64] = np.count_nonzero(hits, axis=1)
        return counts

    @cached_property
    def _pairs(self) -> Rows:
        """The pairs of a query and a neighbour, as ascending numbers."""
        return np.sort(self._numbered(self.wanted)[self.wanted >= 0])

    def _numbered(self, rows: Rows) -> Rows:
        """Number pairs of a query and a row [n, m]."""
        return np.arange(len(rows))[:, np.newaxis] * STRIDE + np.where(rows < 0, STRIDE - 1, rows)


@dataclasses.dataclass(frozen=True, eq=False)
class BuiltShell:
    """A shell with the best of its trees, and the ways to search it that may be worth it."""

    asked: Asked
    tree: ScannIndex | None
    """None where every vector is scored."""
    rough: list[Option]
    """As measured with some of the queries."""

    def measured(self, some: Iterable[Option]) -> list[Option]:
        """Measure options with all queries."""
        return [
            dataclasses.replace(option, found=self.asked.present)
            if self.tree is None or option.settings.num_leaves is None
            else _measure(self.tree, option.settings, self.asked)
            for option in some
        ]

    def take(self, settings: ScannSettings, vectors: Vectors, rows: Rows) -> ScannIndex:
        """The index that searches in one of the ways; the shell has `rows` of `vectors`."""
        if self.tree is None or settings.num_leaves is None:
            return ScannIndex.build(vectors[rows], settings)
        return dataclasses.replace(self.tree, settings=settings)


def build_shell(
    vectors: Vectors, asked: Asked, *, n_all: int, recall: float, storage: Storage
) -> BuiltShell:
    """Build trees until one is good, and keep the best.

    Args:
        vectors: those of the shell [size, d].
        asked: what it is asked.
        n_all: how many vectors all shells have.
        recall: the share of its neighbours that is enough.
        storage: how a tree keeps the vectors.
    """
    size, some = len(vectors), asked.some
    every = _score_all(vectors, some)
    if size < max(scann_index.FEWEST_FOR_TREE // 10, scann_index.FEWEST, 4 * asked.k):
        return BuiltShell(asked, None, [every])
    tree, options = _best_tree(
        vectors, some, recall=recall, storage=storage, good_us=GOOD_SHARE * every.cost_us
    )
    few = scann_index.FEWEST_FOR_TREE if storage == "float32" else 0
    if size <= max(few, EXACT_SHARE * n_all):
        options.append(every)
    return BuiltShell(asked, tree, options)


def _best_tree(
    vectors: Vectors, asked: Asked, *, recall: float, storage: Storage, good_us: float
) -> tuple[ScannIndex, list[Option]]:
    """Build trees of about 2 sqrt(size) leaves until one finds enough at the cost `good_us`.

    Returns:
        The best, and its options as measured.
    """
    neighbours = int(asked.present.sum())
    root = math.isqrt(len(vectors))
    kinds, num_leaves, enough = KINDS, 2 * root, (1 + recall) / 2
    if neighbours < FEW_NEIGHBOURS * asked.wanted.size:
        kinds, num_leaves, enough = KINDS[:1], root // 2, 0.5
    usual = ScannSettings(num_leaves=num_leaves, reorder=asked.k, recall_k=asked.k, storage=storage)
    best: tuple[float, ScannIndex, list[Option]] | None = None
    for number, kind in enumerate(kinds):
        tree = ScannIndex.build(vectors, dataclasses.replace(usual, **kind))  # type: ignore[arg-type]
        options = list(_explore(tree, asked, enough=enough))
        reaching = [x.cost_us for x in options if x.found.sum() >= recall * neighbours]
        most = max(int(option.found.sum()) for option in options)
        cost = min(reaching, default=1e6 * (1 + neighbours - most))
        if best is None or cost < best[0]:
            best = cost, tree, options
        del tree  # two of a large index may be too many
        if reaching and (cost <= good_us or number):  # those that follow are slower
            break
    if best is None:
        raise ValueError("KINDS: expected at least one, received none")
    return best[1], best[2]


def _explore(tree: ScannIndex, asked: Asked, *, enough: float) -> Iterator[Option]:
    """Search more and more leaves, and reorder more and more vectors, until enough is found."""
    num_leaves, neighbours = tree.settings.num_leaves or 1, int(asked.present.sum())
    first = 0
    for leaves in sorted({max(1, round(share * num_leaves)) for share in LEAF_SHARES}):
        most, last = -1, first
        for number, factor in enumerate(REORDER_FACTORS[first:], first):
            if number > first and factor * asked.k > SMALL_SHARE * tree.size:
                break
            settings = with_effort(tree.settings, leaves=leaves, reorder=factor * asked.k)
            option = _measure(tree, settings, asked)
            yield option
            found = int(option.found.sum())
            if found - most <= GAIN * neighbours:
                break
            most, last = found, number
        if most >= enough * neighbours:
            break
        first = max(0, last - 2)  # with more leaves, fewer do not find more


def _measure(tree: ScannIndex, settings: ScannSettings, asked: Asked) -> Option:
    """What a search of the tree finds, and costs."""
    rows, _ = dataclasses.replace(tree, settings=settings).search_once(asked.queries, asked.k)
    cost = cost_us(settings, size=tree.size, width=tree.width)
    return Option(settings=settings, cost_us=cost, found=asked.count(rows))


def _score_all(vectors: Vectors, asked: Asked) -> Option:
    """Score every vector: all is found."""
    settings = ScannSettings(num_leaves=None, reorder=asked.k, recall_k=asked.k)
    cost = cost_us(settings, size=len(vectors), width=vectors.shape[1])
    return Option(settings=settings, cost_us=cost, found=asked.present)
