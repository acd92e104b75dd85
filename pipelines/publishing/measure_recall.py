"""Count how many of the exact neighbours a search has found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.search.index import Found, Rows, Vectors


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
