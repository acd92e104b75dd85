"""Index: finds the vectors with the highest inner products; and exact search over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.top_k import top_k
from towers.errors import QueryError

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Found = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows [n, m] and their scores, each query's best first; -1 and -inf pad a list that ends early."""

LARGEST_BATCH = 1024
"""Queries searched together at most."""

LARGEST_BLOCK = 2**24
"""Scores held at once (64 MiB); a large corpus is scored for fewer queries at a time."""


class Index(Protocol):
    """Vectors, known by their rows from 0 on, searched by inner product."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether the true neighbours are found, all of them."""
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

    is_exact = True

    def __init__(self, vectors: Vectors) -> None:
        """Search `vectors` [size, d]."""
        self._vectors = vectors

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Found:
        """Find the min(k, size) rows of the highest inner products; see `Index.search`."""
        check_queries(queries, k, width=self._vectors.shape[1])
        block = max(1, LARGEST_BLOCK // max(self.size, 1))
        starts = range(0, max(len(queries), 1), block)
        found = [top_k(queries[i : i + block] @ self._vectors.T, k) for i in starts]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([s for _, s in found])


def search_without(index: Index, queries: Vectors, k: int, *, excluded: Sequence[Rows]) -> Found:
    """Find k rows for each query that are not among its excluded rows.

    A query is searched deeper by the number of rows it excludes, so queries that exclude about as
    many are searched together.

    Args:
        index: what to search.
        queries: [n, d] float32.
        k: how many rows; fewer come only where no more are left, padded to min(k, size) columns.
        excluded: for each query, the rows to leave out, in any order.

    Raises:
        QueryError: as `Index.search`.
    """
    check_k(k)
    counts = np.array([len(rows) for rows in excluded], dtype=np.int64)
    rows = np.full((len(queries), min(k, index.size)), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    n_blocks = -(-len(queries) // LARGEST_BATCH)
    for block in np.array_split(np.argsort(counts, kind="stable"), n_blocks) if n_blocks else ():
        found = index.search(queries[block], k + int(counts[block].max()))
        kept = _keep(*found, [excluded[query] for query in block], size=index.size)
        rows[block], scores[block] = (values[:, :k] for values in kept)
    return rows, scores


def check_k(k: int) -> None:
    """Refuse a number of results that makes no sense.

    Raises:
        QueryError: k is below 1.
    """
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


def _keep(rows: Rows, scores: Vectors, excluded: Sequence[Rows], *, size: int) -> Found:
    """Move each query's excluded rows behind the others, as -1 and -inf; order stays otherwise."""
    query = np.arange(len(rows))
    counts = [len(some) for some in excluded]
    unwanted = np.repeat(query, counts) * size + np.concatenate(excluded)
    out = np.isin(query[:, np.newaxis] * size + rows, unwanted)
    order = np.argsort(out, axis=1, kind="stable")
    rows, scores = np.where(out, -1, rows), np.where(out, np.float32(-np.inf), scores)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
