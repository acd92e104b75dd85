"""Index one direction: by ScaNN, or exactly where that is asked for or ScaNN falls short.

What is checked is the search that the SavedModel holds, against an exact one.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import IndexConfig
from pipelines.progress import Advance, ignore
from pipelines.publishing.build_index import build_index
from pipelines.publishing.draw_queries import Queries
from pipelines.publishing.measure_recall import exact_scores, measure_recall
from pipelines.results import AnnSetting
from serving.search.graph_search import ExactSearch, Search, ShellSearch
from serving.search.index import ExactIndex, Found
from serving.version.index_record import DirectionIndex
from towers.directions import Direction
from towers.errors import RecallGateError

INDEX_STEPS = 3
"""The steps of a direction that `advance` counts: exact search, the build, and the check."""

CHECKED_AT_ONCE = 64
"""Queries that an exported search is checked with at a time."""
TIMED = 3
"""Batches of that size that its speed is measured with."""


@dataclass(frozen=True)
class IndexedDirection:
    """What the manifest and the report say about the index of a direction."""

    record: DirectionIndex
    tried: list[AnnSetting]
    """The settings tried; empty where every vector is scored."""
    shape: tuple[int, int] = (0, 0)
    """How many vectors are searched, and the coordinates of each."""
    per_second: float = 0.0
    """Queries answered a second, in batches of `CHECKED_AT_ONCE`."""


def index_direction(
    direction: Direction,
    targets: NDArray[np.float32],
    sources: Queries,
    *,
    config: IndexConfig,
    folder: Path,
    advance: Advance = ignore,
) -> tuple[Search, IndexedDirection]:
    """Index the targets of a direction, and check what is exported against an exact search.

    Args:
        direction: whose index.
        targets: the vectors of its targets [n, 1 + d].
        sources: what it is asked.
        config: the settings.
        folder: where trees are kept for the retriever.
        advance: is told of every one of `INDEX_STEPS`.

    Raises:
        RecallGateError: the index finds less than the configured share of the exact neighbours, and
            the settings say that nothing is to be published then.
    """
    corpus, queries = direction.project(targets), sources.of(direction)
    search, indexed = _indexed(
        direction, corpus, queries, config=config, folder=folder, advance=advance
    )
    rate = queries_per_second(search, queries.vectors, k=min(config.recall_k, len(corpus)))
    return search, dataclasses.replace(indexed, shape=corpus.shape, per_second=rate)


def _indexed(
    direction: Direction,
    corpus: NDArray[np.float32],
    queries: Queries,
    *,
    config: IndexConfig,
    folder: Path,
    advance: Advance,
) -> tuple[Search, IndexedDirection]:
    """Index targets and queries in the geometry of a direction; see `index_direction`."""
    if config.kind == "exact":
        advance(INDEX_STEPS)
        return ExactSearch(corpus), IndexedDirection(DirectionIndex(recall=1.0), [])
    try:
        return _nearly(corpus, queries, config=config, folder=folder, advance=advance)
    except RecallGateError as error:
        if config.on_miss == "fail":
            raise RecallGateError(
                f"index {direction.name}: {error}; nothing was published"
            ) from None
        shutil.rmtree(folder, ignore_errors=True)
        record = DirectionIndex(recall=1.0, missed=str(error))
        return ExactSearch(corpus), IndexedDirection(record, [])


def describe(name: str, indexed: IndexedDirection) -> str:
    """What the index of the direction `name` is, in a sentence, with its size and speed."""
    record, (n, width) = indexed.record, indexed.shape
    size = (
        f"; {n:,} vectors of {width} coordinates, {4 * n * width / 1e6:,.1f} MB in float32, "
        f"{indexed.per_second:,.0f} queries/s in batches"
    )
    if record.missed:
        why = f"the index is exact, and slower, since ScaNN's fell short: {record.missed}"
        return f"{name}: {why}{size}"
    if not record.trees:
        return f"{name}: every vector is scored{size}"
    searched = sum(tree.leaves_to_search for tree in record.trees if tree.num_leaves)
    leaves = sum(tree.num_leaves or 0 for tree in record.trees)
    return (
        f"{name}: recall {record.recall:.4f} with {searched} of {leaves} leaves searched, in "
        f"{len(record.trees)} shells{size}"
    )


def queries_per_second(search: Search, queries: NDArray[np.float32], *, k: int) -> float:
    """How many queries are answered a second, in at most `TIMED` batches behind a first one."""
    if not len(queries):
        return 0.0
    asked = tf.constant(np.resize(queries, (CHECKED_AT_ONCE, queries.shape[1])))
    search(asked, tf.constant(k))
    start = time.perf_counter()
    for _ in range(TIMED):
        search(asked, tf.constant(k))
    seconds = time.perf_counter() - start
    if isinstance(search, ShellSearch):
        search.release()
    return TIMED * CHECKED_AT_ONCE / seconds


def _nearly(
    corpus: NDArray[np.float32],
    queries: Queries,
    *,
    config: IndexConfig,
    folder: Path,
    advance: Advance,
) -> tuple[Search, IndexedDirection]:
    """Index by ScaNN.

    Raises:
        RecallGateError: the index finds too little.
    """
    k = min(config.recall_k, len(corpus))
    exact = ExactIndex(corpus).search(queries.vectors, k)
    advance(1)
    index, tried = build_index(
        corpus, queries, exact=exact, recall=config.recall, storage=config.storage
    )
    advance(1)
    settings = index.settings
    if any(shell.num_leaves for shell in settings):
        index.save(folder)
        search = ShellSearch(index, folder)
    else:
        search = ShellSearch.of(index)
    del index  # two of a large index may be too many
    shares = measure_recall(exact, _found(search, corpus, queries.vectors, k=k))
    reached = {name: float(shares[part].mean()) for name, part in queries.groups.items()}
    advance(1)
    worst = min(reached, key=lambda name: reached[name])
    if reached[worst] < config.recall:
        raise RecallGateError(
            f"expected recall@{k} of at least {config.recall}, reached {reached[worst]:.4f} for "
            f"{worst}; lower index.recall, or set index.kind = 'exact'"
        )
    record = DirectionIndex(recall=float(shares.mean()), shells=settings)
    return search, IndexedDirection(record, tried)


def _found(
    search: ShellSearch, corpus: NDArray[np.float32], queries: NDArray[np.float32], *, k: int
) -> Found:
    """What a search finds in a corpus, with its exact scores."""
    blocks = []
    for start in range(0, len(queries), CHECKED_AT_ONCE):
        rows, _ = search(tf.constant(queries[start : start + CHECKED_AT_ONCE]), tf.constant(k))
        blocks.append(rows.numpy())
    search.release()
    rows = np.concatenate(blocks)
    return rows, exact_scores(corpus, queries, rows)
