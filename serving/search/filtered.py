"""Search among the targets that match a filter; never fewer than match, up to k."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from serving.search.index import ExactIndex, Found, Index, Pairs, Rows, Vectors, search_without
from towers.directions import Direction

FEW = 20_000
"""So many matching vectors are scored exactly, which takes no longer than a deep search."""

DEEPEST = 0.1
"""The share of an index that is searched at most; beyond it, scoring what matches is quicker."""

MARGIN = 1.5
"""How much deeper to search than would do if matching targets were as common among the best."""


def search_among(
    index: Index,
    direction: Direction,
    vectors: Vectors,
    queries: Vectors,
    *,
    k: Rows,
    width: int,
    matching: Rows,
    unwanted: Pairs,
) -> Found:
    """Find for each of n queries its k best targets among those that match.

    Where few match, all of them are scored. Where many do, the index is searched deeper, by the
    share that matches; and a query that still has too few has all that match scored.

    Args:
        index: of the direction.
        direction: whose targets are searched.
        vectors: of the targets by row, [size, 1 + d].
        queries: [n, width] float32.
        k: [n] how many targets, each query's own.
        width: the columns of the answer; at least the largest k.
        matching: the rows that match, in order.
        unwanted: targets to leave out.

    Returns:
        Rows [n, min(width, size)] and scores; -1 and -inf where no more match.
    """
    width = min(width, index.size)
    rows = np.full((len(queries), width), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    if not len(matching):
        return rows, scores
    short = np.ones(len(queries), dtype=np.bool_)
    depth = math.ceil(MARGIN * width * index.size / len(matching))
    if len(matching) > FEW and depth <= DEEPEST * index.size:
        is_matching = np.zeros(len(vectors), dtype=np.bool_)
        is_matching[matching] = True
        found = _search_deep(
            index, queries, k=k, depth=depth, is_matching=is_matching, unwanted=unwanted
        )
        rows, scores = found[0][:, :width], found[1][:, :width]
        short = np.count_nonzero(rows >= 0, axis=1) < np.minimum(k, width)
    if short.any():
        corpus = direction.project(vectors[matching])
        places, best = search_without(
            ExactIndex(corpus),
            queries[short],
            k=k[short],
            width=width,
            unwanted=_renumbered(unwanted, chosen=short, matching=matching),
        )
        n_columns = places.shape[1]
        rows[short, :n_columns] = np.where(places < 0, -1, matching[places])
        scores[short, :n_columns] = best
    return rows, scores


def _search_deep(
    index: Index,
    queries: Vectors,
    *,
    k: Rows,
    depth: int,
    is_matching: NDArray[np.bool_],
    unwanted: Pairs,
) -> Found:
    """Of the `depth` best, list those that match first, k of them at most."""
    depths = np.full(len(queries), depth)
    rows, scores = search_without(index, queries, k=depths, width=depth, unwanted=unwanted)
    fits = (rows >= 0) & is_matching[rows]
    out = ~fits | (np.cumsum(fits, axis=1) > k[:, np.newaxis])
    order = np.argsort(out, axis=1, kind="stable")
    rows, scores = np.where(out, -1, rows), np.where(out, np.float32(-np.inf), scores)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _renumbered(unwanted: Pairs, *, chosen: NDArray[np.bool_], matching: Rows) -> Pairs:
    """Name pairs by their places among the chosen queries and the matching rows."""
    queries, rows = unwanted
    places = np.minimum(np.searchsorted(matching, rows), len(matching) - 1)
    inside = chosen[queries] & (matching[places] == rows)
    return (np.cumsum(chosen) - 1)[queries[inside]], places[inside]
