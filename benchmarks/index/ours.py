"""Measure the product's index, one tree of ScaNN's, and exact search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf
from scann import scann_ops_pybind

from benchmarks.index.measure import BAR, Built, K, Search, Task, figures, growing, timed, tuned
from pipelines.config import IndexConfig
from pipelines.publishing.build_index import build_index
from pipelines.publishing.draw_queries import Queries
from pipelines.publishing.index_direction import describe, index_direction
from serving.search.graph_search import Search as GraphSearch
from serving.search.graph_search import ShellSearch
from serving.search.index import ExactIndex, Rows, Vectors
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannIndex, ScannSettings
from towers.directions import DIRECTIONS
from towers.errors import RecallGateError

REORDER_FACTORS = (2, 4, 8, 16, 64)
NONE = Built(0.0, 0.0)


def measure_ours(task: Task) -> list[dict[str, Any]]:
    """The product's index, in Python and with TensorFlow's operations."""
    half = task.to_tune_with()
    exact = ExactIndex(task.vectors).search(half.queries, K)
    asked = Queries(half.queries, {"queries": slice(0, len(half.queries))})
    built: list[Built] = []
    with timed(built):
        index, _ = build_index(task.vectors, asked, exact=exact, recall=BAR)
    trees = [settings for settings in index.settings if settings.num_leaves]
    searched, leaves = (
        sum(tree.leaves_to_search for tree in trees),
        sum(tree.num_leaves or 0 for tree in trees),
    )
    setting = f"{searched} of {leaves} leaves in {len(index.settings)} shells"
    live, in_graph = open_shells(index), tf.function(ShellSearch.of(index), reduce_retracing=True)
    searches: dict[str, Search] = {
        "fm-recall": lambda queries: live.search(queries, K)[0],
        "fm-recall, SavedModel": partial(_rows_in_graph, in_graph),
    }
    return [
        figures(name, setting, search, task.to_measure(), built=built[0])
        for name, search in searches.items()
    ]


def check_builds(task: Task, n: int) -> Iterator[str]:
    """Build the index of u2i `n` times as it is published; a line says what came of each."""
    half, config = task.to_tune_with(), IndexConfig(recall=BAR, recall_k=K, on_miss="fail")
    asked = Queries(half.queries, {"queries": slice(0, len(half.queries))})
    for number in range(1, n + 1):
        built: list[Built] = []
        with TemporaryDirectory() as folder, timed(built):
            try:
                search, indexed = index_direction(
                    DIRECTIONS["u2i"], task.vectors, asked, config=config, folder=Path(folder)
                )
            except RecallGateError as error:
                yield f"{number:2}: refused, {error}"
                continue
        recall = task.to_measure().recall(partial(_rows_in_graph, search))
        yield (
            f"{number:2}: published, {describe('u2i', indexed)}; recall of other queries "
            f"{recall:.4f}; {built[0].cpu_s:.1f} s of processor time"
        )


def measure_tree(task: Task) -> list[dict[str, Any]]:
    """One tree as ScaNN builds it, with the fastest of its settings that find enough."""
    leaves = 2 * math.isqrt(len(task.vectors))
    settings = ScannSettings(num_leaves=leaves, reorder=K, recall_k=K)
    built: list[Built] = []
    with timed(built):
        builder = scann_ops_pybind.builder(task.vectors, K, "dot_product").tree(leaves, 1)
        searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(K).build()
    tree = ScannIndex(searcher, settings, task.vectors.shape[1])

    def searches(factor: int) -> Iterator[tuple[str, Search]]:
        for number in growing(max(1, leaves // 100), leaves):
            how = dataclasses.replace(settings, leaves_to_search=number, reorder=factor * K)
            changed = dataclasses.replace(tree, settings=how)
            name = f"{number} of {leaves} leaves, {factor * K} reordered"
            yield name, partial(_rows, changed)

    rows = []
    for factor in REORDER_FACTORS:
        setting, search = tuned(task.to_tune_with(), searches(factor))
        rows.append(figures("ScaNN, one tree", setting, search, task.to_measure(), built=built[0]))
    enough = [row for row in rows if row["recall"] >= BAR - 0.005]
    if enough:
        return [max(enough, key=lambda row: row["rate"])]
    return [max(rows, key=lambda row: row["recall"])]


def measure_exact(task: Task) -> list[dict[str, Any]]:
    """Every vector scored."""
    index = ExactIndex(task.vectors)
    return [
        figures(
            "exact", "", lambda queries: index.search(queries, K)[0], task.to_measure(), built=NONE
        )
    ]


def make_task(vectors: Any, queries: Any) -> Task:
    """Find the exact neighbours of queries."""
    vectors, queries = (np.ascontiguousarray(x, dtype=np.float32) for x in (vectors, queries))
    _, scores = ExactIndex(vectors).search(queries, K)
    return Task(vectors=vectors, queries=queries, kth=scores[:, -1])


def _rows_in_graph(search: GraphSearch, queries: Vectors) -> Rows:
    """The rows [n, K] that a graph finds."""
    rows: Rows = search(tf.constant(queries), tf.constant(K))[0].numpy()
    return rows


def _rows(tree: ScannIndex, queries: Vectors) -> Rows:
    """The rows [n, K] that a tree finds."""
    return tree.search(queries, K)[0]
