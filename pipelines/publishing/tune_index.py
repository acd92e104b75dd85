"""Tune an approximate index: the cheapest search that finds enough of the true neighbours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from pipelines.results import AnnSetting
from serving.search.index import Found, Rows, Vectors
from serving.search.scann_index import ScannIndex, Storage, choose_settings
from towers.errors import RecallGateError

REORDER_FACTORS = (1, 2, 4, 8, 16, 32, 64)
"""Vectors to reorder that are tried, in multiples of the k that recall is counted over."""

LAST_FACTORS = (128, 256, 512)
"""More of them, which are tried with all leaves before an index is refused."""

SMALL_SHARE = 1 / 16
"""Of all vectors, what these may be at most."""

TIMED_QUERIES = 50
"""Queries asked one at a time, for the latency of one."""


def tune_index(
    vectors: Vectors,
    queries: Vectors,
    *,
    exact: Found,
    recall: float,
    storage: Storage = "float32",
) -> tuple[ScannIndex, list[AnnSetting]]:
    """Index `vectors` [n, d], and search as little of it as finds enough for `queries` [m, d].

    Args:
        vectors: what to index.
        queries: what to ask.
        exact: what an exact search finds for the queries; recall is counted over as many.
        recall: the share of these that must be found.
        storage: how a tree keeps the vectors.

    Returns:
        The index, with the settings chosen; and each setting tried, as measured. Without a tree
        there is nothing to choose and nothing is measured.

    Raises:
        RecallGateError: as `tune_search`.
    """
    settings = choose_settings(len(vectors), recall_k=exact[0].shape[1], storage=storage)
    index = ScannIndex.build(vectors, settings)
    if settings.num_leaves is None:
        return index, []
    return tune_search(index, vectors, queries, exact=exact, recall=recall)


def tune_search(
    index: ScannIndex, vectors: Vectors, queries: Vectors, *, exact: Found, recall: float
) -> tuple[ScannIndex, list[AnnSetting]]:
    """Search as little of an index with a tree as finds enough; see `tune_index`.

    Leaves are added until enough neighbours are found with many vectors reordered; then as few are
    reordered as still find enough, with these leaves or half as many again. The faster of the two
    is chosen. Enough is a share that is two standard errors above `recall`. Where all leaves do not
    find enough, as with vectors that lie in no groups, more are reordered.

    Raises:
        RecallGateError: that does not find enough either.
    """
    recall_k, num_leaves = exact[0].shape[1], index.settings.num_leaves or 1
    tried: list[AnnSetting] = []
    enough: list[AnnSetting] = []

    def is_enough(leaves: int, factor: int) -> bool:
        changed = _with(index, leaves=leaves, reorder=factor * recall_k)
        setting, lower_bound = _measure(changed, vectors, queries, exact=exact)
        tried.append(setting)
        if lower_bound >= recall:
            enough.append(setting)
        return lower_bound >= recall

    growing = _growing(num_leaves)
    fewest = next((leaves for leaves in growing if is_enough(leaves, REORDER_FACTORS[-1])), None)
    if fewest is None:
        largest = SMALL_SHARE * len(vectors)
        last = (factor for factor in LAST_FACTORS if factor * recall_k <= largest)
        if not any(is_enough(num_leaves, factor) for factor in last):
            raise _refused(index, tried[-1], recall=recall, recall_k=recall_k, n=len(queries))
        return _chosen(index, enough), tried
    for leaves in (fewest, next(growing, None)):
        if leaves is not None:
            any(is_enough(leaves, factor) for factor in REORDER_FACTORS[:-1])
    return _chosen(index, enough), tried


def _chosen(index: ScannIndex, enough: list[AnnSetting]) -> ScannIndex:
    """Mark the fastest of the settings that find enough; the index with it."""
    chosen = max(enough, key=lambda setting: setting["queries_per_second"])
    chosen["chosen"] = True
    return _with(index, leaves=chosen["leaves_to_search"], reorder=chosen["reorder"])


def _refused(
    index: ScannIndex, reached: AnnSetting, *, recall: float, recall_k: int, n: int
) -> RecallGateError:
    """Say what was reached for `n` queries, and what to do."""
    storage = index.settings.storage
    finer = "" if storage == "float32" else f", set index.storage to a finer one than {storage}"
    return RecallGateError(
        f"index: expected recall@{recall_k} of {recall} over {n} sampled queries, "
        f"reached {reached['recall']:.4f} with all {index.settings.num_leaves} leaves and "
        f"{reached['reorder']} vectors reordered; lower index.recall{finer}, or choose "
        'index.kind = "exact"'
    )


def exact_scores(vectors: Vectors, queries: Vectors, rows: Rows) -> Vectors:
    """The inner products of queries [n, d] with the rows [n, m] found for each; -inf for row -1."""
    scores: Vectors = np.empty(rows.shape, dtype=np.float32)
    for query, found, into in zip(queries, rows, scores, strict=True):
        np.matmul(vectors[found], query, out=into)
    scores[rows < 0] = -np.inf
    return scores


def measure_recall(exact: Found, found: Found) -> NDArray[np.float64]:
    """The share of each query's exact neighbours that were found; [n].

    A row with the same score as the last exact neighbour is as good as that one, so that it does
    not matter which of many equal vectors are found.

    Args:
        exact: rows and scores [n, k] of an exact search.
        found: rows and their exact scores [n, at least k], best first; -1 where there is none.
    """
    (exact_rows, exact_scores), (rows, scores) = exact, found
    n, k = exact_rows.shape
    rows, scores = rows[:, :k], scores[:, :k]
    query = np.arange(n)[:, np.newaxis]
    above = max(exact_rows.max(initial=0), rows.max(initial=0)) + 1
    is_neighbour = np.isin(query * above + rows, query * above + exact_rows)
    rounding = 1e-5 * np.abs(exact_scores).max(axis=1, keepdims=True, initial=0.0)
    is_tied = np.abs(scores - exact_scores[:, -1:]) <= rounding
    good = (rows >= 0) & (is_neighbour | is_tied)
    shares: NDArray[np.float64] = good.mean(axis=1)
    return shares


def _growing(limit: int) -> Iterator[int]:
    """Count up by steps of about a half: 1, 2, 3, 4, 6, 9, ..., and at last `limit` itself."""
    number = 1
    while number < limit:
        yield number
        number += (number + 1) // 2
    yield limit


def _with(index: ScannIndex, *, leaves: int, reorder: int) -> ScannIndex:
    """The same index with other search settings."""
    settings = dataclasses.replace(index.settings, leaves_to_search=leaves, reorder=reorder)
    return dataclasses.replace(index, settings=settings)


def _measure(
    index: ScannIndex, vectors: Vectors, queries: Vectors, *, exact: Found
) -> tuple[AnnSetting, float]:
    """Measure one setting; and the recall less two standard errors.

    What a search of all leaves would add for queries whose own have fewer than k vectors does not
    count: it would hide how little the setting finds.
    """
    k = exact[0].shape[1]
    start = perf_counter()
    rows, _ = index.search_once(queries, k)
    seconds = perf_counter() - start
    latencies = []
    for query in queries[:TIMED_QUERIES]:
        start = perf_counter()
        index.search_once(query[np.newaxis], k)
        latencies.append(perf_counter() - start)
    shares = measure_recall(exact, (rows, exact_scores(vectors, queries, rows)))
    mean = float(shares.mean())
    setting = AnnSetting(
        leaves_to_search=index.settings.leaves_to_search,
        reorder=index.settings.reorder,
        recall=mean,
        latency_ms=1000 * float(np.median(latencies)),
        queries_per_second=len(queries) / seconds,
        chosen=False,
    )
    return setting, mean - 2 * float(shares.std()) / math.sqrt(len(shares))
