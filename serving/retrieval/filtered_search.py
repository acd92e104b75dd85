"""Searches among the targets that match a filter."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from serving.retrieval.catalogue import Catalogue
from serving.search.filtered import search_among
from serving.search.filters import Filter
from serving.search.index import Found, Index, Pairs, Rows, Vectors, search_without
from towers.directions import Direction


@runtime_checkable
class FilteringIndex(Protocol):
    """An index that evaluates filters itself, as one in Milvus does."""

    def filtered(self, where: Filter) -> Index | None:
        """The index of the targets that match; None where it cannot evaluate the filter.

        Its lists are padded with -1.
        """
        ...


def search_filtered(
    index: Index,
    direction: Direction,
    targets: Catalogue,
    queries: Vectors,
    *,
    k: Rows,
    width: int,
    where: Filter,
    unwanted: Pairs,
) -> Found:
    """Find for each of n queries its k best targets among those that match a filter.

    What an index with filters of its own finds counts if every query has its k targets; otherwise
    the filter is evaluated here, so that never fewer are found than match.

    Args:
        index: of the direction.
        direction: whose targets are searched.
        targets: the catalogue of them.
        queries: [n, width] float32.
        k: [n] how many targets, each query's own.
        width: the columns of the answer; at least the largest k.
        where: the filter.
        unwanted: targets to leave out.

    Returns:
        Rows [n, min(width, size)] and scores; -1 and -inf where no more match.
    """
    matching = index.filtered(where) if isinstance(index, FilteringIndex) else None
    if matching is not None:
        rows, scores = search_without(matching, queries, k=k, width=width, unwanted=unwanted)
        if (np.count_nonzero(rows >= 0, axis=1) >= np.minimum(k, rows.shape[1])).all():
            return rows, scores
    return search_among(
        index,
        direction,
        targets.vectors,
        queries,
        k=k,
        width=width,
        matching=targets.matching(where),
        unwanted=unwanted,
    )
