"""Index: finds the vectors with the highest inner products; and exact search over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.search.best_columns import best_columns
from towers.errors import QueryError

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows [n, m] and their scores, each query's best first; -1 and -inf pad a list that ends early."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers of queries, and a row for each."""

STRIDE = 2**40
"""More than there are rows, so that query * STRIDE + row names a pair."""

N_CPUS = len(os.sched_getaffinity(0))
"""The cores that this process may use."""

LARGEST_BATCH = 1024
"""Queries searched together at most."""

LARGEST_BLOCK = 2**24
"""Scores held at once (64 MiB)."""

BLOCK_ROWS = 2**16
"""Vectors that many queries are scored for at a time, at least."""

DEPTH = 16
"""Such a block has at least this many times k vectors, so that merging its best costs little."""


class Index(Protocol):
    """Vectors, known by their rows from 0 on, searched by inner product."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        ...

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows for each of the queries [n, d], which may be none; no padding.

        No row comes twice. Among equal scores an exact index prefers the lower row.

        Raises:
            QueryError: k is below 1, or the queries are not finite vectors of the index's width.
        """
        ...


class ExactIndex:
    """Scores every vector."""

    def __init__(self, vectors: Vectors) -> None:
        """Search `vectors` [size, d]."""
        self._vectors = vectors

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Found:
        """Find the min(k, size) rows of the highest inner products; see `Index.search`."""
        return search_rows(self._vectors, queries, k)


def search_rows(
    vectors: Vectors, queries: Vectors, k: int, *, present: NDArray[np.bool_] | None = None
) -> Found:
    """Score every row of `vectors` [size, d] for each query, a block of both at a time.

    Args:
        vectors: what to search.
        queries: [n, d] float32.
        k: how many rows; at most as many as are present.
        present: [size], which rows may be found; all by default.

    Returns:
        min(k, size) rows a query and their scores; ties go to the lower row.

    Raises:
        QueryError: as `Index.search`.
    """
    check_queries(queries, k, width=vectors.shape[1])
    n_rows = max(BLOCK_ROWS, DEPTH * k, LARGEST_BLOCK // max(len(queries), 1))
    block = max(1, LARGEST_BLOCK // max(1, min(n_rows, len(vectors))))
    starts = range(0, max(len(queries), 1), block)
    if present is None:
        score = partial(_score, vectors)
    else:
        score = partial(_score_present, vectors, present)
    found = [
        _search_block(score, queries[i : i + block], k, size=len(vectors), n_rows=n_rows)
        for i in starts
    ]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([s for _, s in found])


def _score(vectors: Vectors, queries: Vectors, rows: slice) -> Vectors:
    """The scores of some rows, [n, m]."""
    return queries @ vectors[rows].T


def _score_present(
    vectors: Vectors, present: NDArray[np.bool_], queries: Vectors, rows: slice
) -> Vectors:
    """The same, -inf for rows that are not present."""
    scores = _score(vectors, queries, rows)
    scores[:, ~present[rows]] = -np.inf
    return scores


def _search_block(
    score: Callable[[Vectors, slice], Vectors], queries: Vectors, k: int, *, size: int, n_rows: int
) -> Found:
    """The same for a few queries, `n_rows` vectors at a time."""
    rows, scores = best_columns(score(queries, slice(0, n_rows)), k)
    for start in range(n_rows, size, n_rows):
        more, more_scores = best_columns(score(queries, slice(start, start + n_rows)), k)
        places, scores = best_columns(np.concatenate([scores, more_scores], axis=1), k)
        rows = np.take_along_axis(np.concatenate([rows, more + start], axis=1), places, axis=1)
        rows[places < 0] = -1
    return rows, scores


def search_without(
    index: Index, queries: Vectors, *, k: Rows, width: int, unwanted: Pairs
) -> Found:
    """Find for each query its k best rows but those that are not wanted for it.

    A query is searched deeper by the number of its unwanted rows; those of about the same depth are
    searched together.

    Args:
        index: what to search.
        queries: [n, d] float32.
        k: [n] how many rows, each query's own, 0 for none; fewer come only where no more are left.
        width: the columns of the answer; at least the largest k.
        unwanted: rows to leave out.

    Returns:
        Rows [n, min(width, size)] and their scores, of which a query has k at most.

    Raises:
        QueryError: as `Index.search`.
    """
    width = min(width, index.size)
    if not len(unwanted[0]) and 0 < len(k) <= LARGEST_BATCH and (k >= width).all() and width:
        return index.search(queries, width)
    rows = np.full((len(queries), width), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    keys = number_pairs(unwanted)
    counts = np.bincount(keys // STRIDE, minlength=len(queries))
    for block in _alike(np.where(k > 0, k + counts, 0)):
        found = index.search(queries[block], int((k + counts)[block].max()))
        if counts[block].any():
            found = _drop(*found, block=block, keys=keys)
        n_columns = min(width, found[0].shape[1])
        rows[block, :n_columns], scores[block, :n_columns] = (x[:, :n_columns] for x in found)
    beyond = np.arange(width) >= k[:, np.newaxis]
    if beyond.any():
        rows[beyond], scores[beyond] = -1, -np.inf
    return rows, scores


def no_pairs() -> Pairs:
    """Nothing is unwanted."""
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def number_pairs(pairs: Pairs) -> Rows:
    """The numbers query * STRIDE + row of pairs, in order and none twice.

    By a sort, which is many times faster here than the hashing of `np.unique`.
    """
    keys = np.sort(pairs[0] * STRIDE + pairs[1])
    differs = np.ones(len(keys), dtype=np.bool_)
    differs[1:] = keys[1:] != keys[:-1]
    return keys[differs]


def check_k(k: int) -> None:
    """Refuse a number of results that makes no sense.

    Raises:
        QueryError: k is no integer, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise QueryError(f"k: expected an integer, received {k!r}")
    if k < 1:
        raise QueryError(f"k: expected at least 1, received {k}")


def check_queries(queries: Vectors, k: int, *, width: int) -> None:
    """Refuse what no index can search.

    Raises:
        QueryError: as `Index.search`.
    """
    check_k(k)
    if queries.shape[1:] != (width,):
        raise QueryError(
            f"query vectors: expected shape [n, {width}], received {list(queries.shape)}; give "
            "vectors of the version that made the index"
        )
    if not np.isfinite(queries).all():
        raise QueryError(
            "query vectors: expected finite numbers, received NaN or infinity; check the values of "
            "the numeric features"
        )


def contains(ascending: Rows, values: Rows) -> NDArray[np.bool_]:
    """Flag the values, of any shape, that are among ascending numbers [n]."""
    if not len(ascending):
        return np.zeros(values.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[places] == values)


def _alike(depth: Rows) -> Iterator[Rows]:
    """Cut the queries into blocks, of depths that differ fourfold at most; depth 0 is left out."""
    order = np.argsort(depth, kind="stable")
    start = len(order) - int(np.count_nonzero(depth))
    while start < len(order):
        limit = np.searchsorted(depth[order], 4 * depth[order[start]], side="right")
        stop = min(start + LARGEST_BATCH, int(limit))
        yield order[start:stop]
        start = stop


def _drop(rows: Rows, scores: Vectors, *, block: Rows, keys: Rows) -> Found:
    """Move the rows of unwanted pairs behind the others, as -1 and -inf; order stays otherwise."""
    found = block[:, np.newaxis] * STRIDE + rows
    out = contains(keys, found)
    order = np.argsort(out, axis=1, kind="stable")
    rows, scores = np.where(out, -1, rows), np.where(out, np.float32(-np.inf), scores)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
