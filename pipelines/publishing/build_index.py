"""Build the index of a direction: shells by length, each in the way that serves it best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.publishing.choose_effort import Choice, Option, choose_effort, cost_us, with_effort
from pipelines.publishing.draw_queries import Queries
from pipelines.results import AnnSetting
from serving.search import scann_index
from serving.search.equal_vectors import Places
from serving.search.index import STRIDE, Found, Rows, Vectors
from serving.search.scann_index import ScannIndex, ScannSettings, Storage
from serving.search.shells import Shell, Shells, cut_by_length
from towers.errors import RecallGateError

KINDS: tuple[dict[str, float | int], ...] = (
    {},
    {"anisotropic_centres": 2.5},
    {"dimensions_per_block": 1},
    {"dimensions_per_block": 1, "anisotropic_centres": 2.5},
)
"""How a tree is built: as usual, and otherwise where that is not good."""

GOOD_SHARE = 0.2
"""A tree is good if this share of its leaves has enough of what is to be found in the shell."""

FEW_NEIGHBOURS = 0.01
"""A shell with a smaller share of all neighbours is built once, good or not."""

SOME = 4
"""One query of so many is asked to compare one build with another."""

LEAF_SHARES = (0.005, 0.007, 0.01, 0.015, 0.022, 0.033, 0.05, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 1)
"""The shares of the leaves whose search is measured."""

NEARLY_ALL = 0.985
"""More leaves are not tried where so large a share of the neighbours is found."""

REORDER_FACTORS = (1, 2, 4, 8, 16, 32)
"""The vectors reordered, in multiples of the k that recall is counted over."""

SMALL_SHARE = 1 / 8
"""Of a shell's vectors, what is reordered at most."""

GAIN = 0.001
"""More leaves or vectors are no longer tried where they find this share more, or less."""

EXACT_SHARE = 0.05
"""Shells of up to this share of all vectors may be scored one by one, in float32."""


def build_index(
    vectors: Vectors,
    queries: Queries,
    *,
    exact: Found,
    recall: float,
    storage: Storage = "float32",
) -> tuple[Shells, list[AnnSetting]]:
    """Index `vectors` [n, d], and search as little of it as finds enough for all kinds of queries.

    Args:
        vectors: what to index.
        queries: what to ask.
        exact: what an exact search finds for the queries; recall is counted over as many.
        recall: the share of these that must be found.
        storage: how trees keep the vectors.

    Returns:
        The index, with the settings chosen; and the best settings at each cost. Of few vectors
        every one is scored, there is nothing to choose, and nothing is measured.

    Raises:
        RecallGateError: no settings find enough.
    """
    k = exact[0].shape[1]
    if len(vectors) < max(scann_index.FEWEST_FOR_TREE, 10 * k):
        every = ScannSettings(num_leaves=None, reorder=k, recall_k=k)
        index = ScannIndex.build(vectors, every)
        return Shells((Shell(index, np.arange(len(vectors)), np.inf),)), []
    places = Places.of(vectors)
    distinct, wanted = vectors, exact[0]
    if places is not None:
        distinct, wanted = vectors[places.rows[places.starts[:-1]]], places.of_rows(wanted)
    lengths = np.linalg.norm(distinct, axis=1)
    cuts = list(cut_by_length(lengths))
    found = [
        _measure_shell(distinct, rows, queries.vectors, wanted, recall=recall, storage=storage)
        for rows in cuts
    ]
    best, bargains = choose_effort(
        [shell.options for shell in found], queries.groups, k=k, recall=recall
    )
    if best.surely < recall:
        raise RecallGateError(_refusal(best, recall=recall, k=k, n=len(queries.vectors)))
    shells = [
        Shell(shell.take(option, distinct, rows), rows, float(lengths[rows[0]]))
        for shell, option, rows in zip(found, best.options, cuts, strict=True)
    ]
    tried = [choice.setting(is_chosen=choice is best) for choice in bargains]
    return Shells(tuple(shells), places), tried


@dataclasses.dataclass(frozen=True, eq=False)
class _Measured:
    """The best tree of a shell, if it has any, and the ways to search the shell."""

    tree: ScannIndex | None
    options: list[Option]

    def take(self, option: Option, vectors: Vectors, rows: Rows) -> ScannIndex:
        """The index of the shell for one of the options."""
        if self.tree is None or option.settings.num_leaves is None:
            return ScannIndex.build(vectors[rows], option.settings)
        return dataclasses.replace(self.tree, settings=option.settings)


def _measure_shell(
    vectors: Vectors,
    rows: Rows,
    queries: Vectors,
    wanted: Rows,
    *,
    recall: float,
    storage: Storage,
) -> _Measured:
    """Build trees of a shell until one is good, and measure the ways to search the best.

    Args:
        vectors: all.
        rows: those of the shell.
        queries: [n, d].
        wanted: the rows [n, k] of the exact neighbours.
        recall: the share of them that is enough.
        storage: how a tree keeps the vectors.
    """
    n, k = wanted.shape
    own = np.ascontiguousarray(vectors[rows])
    place = np.full(len(vectors), -1)
    place[rows] = np.arange(len(rows))
    wanted = place[wanted]
    present = np.count_nonzero(wanted >= 0, axis=1)
    options: list[Option] = []
    is_small = len(rows) < max(scann_index.FEWEST_FOR_TREE // 10, scann_index.FEWEST, 4 * k)
    half_tree = scann_index.FEWEST_FOR_TREE // 2 if storage == "float32" else 0
    if is_small or len(rows) <= max(half_tree, EXACT_SHARE * len(vectors)):
        every = ScannSettings(num_leaves=None, reorder=k, recall_k=k)
        cost = cost_us(every, size=len(rows), width=own.shape[1])
        options.append(Option(settings=every, cost_us=cost, found=present))
    if is_small:
        return _Measured(None, options)
    best: tuple[float, ScannIndex] | None = None
    for kind in KINDS:
        tree = ScannIndex.build(own, _tree_settings(len(own), k, storage=storage, **kind))
        measured = list(_measure_tree(tree, queries[::SOME], wanted[::SOME]))
        neighbours = np.count_nonzero(wanted[::SOME] >= 0)
        enough = [x for x in measured if x.found.sum() >= recall * neighbours]
        first = min(enough, key=lambda option: option.cost_us, default=None)
        most = max(int(option.found.sum()) for option in measured)
        cost = first.cost_us if first else 1e6 * (1 + neighbours - most)
        if best is None or cost < best[0]:
            best = cost, tree
        del tree  # two of a large index may be too many
        if present.sum() < FEW_NEIGHBOURS * n * k or (first and _is_good(first.settings)):
            break
    if best is None:
        return _Measured(None, options)
    return _Measured(best[1], options + list(_measure_tree(best[1], queries, wanted)))


def _tree_settings(n: int, k: int, *, storage: Storage, **kind: float) -> ScannSettings:
    """The build of a tree of about 2 sqrt(n) leaves."""
    settings = ScannSettings(num_leaves=2 * math.isqrt(n), reorder=k, recall_k=k, storage=storage)
    return dataclasses.replace(settings, **kind)  # type: ignore[arg-type]


def _is_good(settings: ScannSettings) -> bool:
    """Whether a small part of the leaves is searched."""
    return settings.leaves_to_search <= GOOD_SHARE * (settings.num_leaves or 0)


def _measure_tree(tree: ScannIndex, queries: Vectors, wanted: Rows) -> Iterator[Option]:
    """Search more and more leaves, and reorder more and more vectors, as long as it finds more."""
    settings, k = tree.settings, wanted.shape[1]
    num_leaves = settings.num_leaves or 1
    size, width = tree.size, tree.width
    truth = _numbered(wanted)
    for leaves in sorted({max(1, round(share * num_leaves)) for share in LEAF_SHARES}):
        most = -1
        for factor in REORDER_FACTORS:
            if factor > 1 and factor * k > SMALL_SHARE * size:
                break
            tried = with_effort(settings, leaves=leaves, reorder=factor * k)
            rows, _ = dataclasses.replace(tree, settings=tried).search_once(queries, k)
            found = _count(truth, _numbered(rows), n=len(queries))
            cost = cost_us(tried, size=size, width=width)
            yield Option(settings=tried, cost_us=cost, found=found)
            gained, most = found.sum() - most, max(most, int(found.sum()))
            if gained <= GAIN * len(truth):
                break
        if most >= NEARLY_ALL * len(truth):
            break


def _numbered(rows: Rows) -> Rows:
    """Number pairs of a query and a row [n, m]; rows of -1 are left out."""
    query = np.broadcast_to(np.arange(len(rows))[:, np.newaxis], rows.shape)
    numbers: Rows = (query * STRIDE + rows)[rows >= 0]
    return numbers


def _count(truth: Rows, found: Rows, *, n: int) -> NDArray[np.int64]:
    """How many of each query's neighbours were found, [n]; one listed twice counts twice."""
    hits = truth[np.isin(truth, found)]
    return np.bincount(hits // STRIDE, minlength=n)


def _refusal(best: Choice, *, recall: float, k: int, n: int) -> str:
    """Say what was reached, by which kind of query, and what to do."""
    kinds = ", ".join(f"{name} {share:.4f}" for name, share in best.reached.items())
    leaves = best.setting(is_chosen=False)
    return (
        f"expected recall@{k} of {recall} over {n} sampled queries, reached "
        f"{min(best.reached.values()):.4f} ({kinds}) with {leaves['leaves_to_search']} of "
        f"{leaves['leaves']} leaves and {leaves['reorder']} vectors reordered; lower index.recall, "
        'set index.storage to a finer one, or choose index.kind = "exact"'
    )
