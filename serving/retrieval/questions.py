"""A question: which targets rank highest for each of n users or items; and what was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.retrieval.diversity import Diversity
from serving.retrieval.notebook import notebook_html
from serving.search.filters import Filter
from serving.search.index import Rows
from towers.directions import Direction


class Options(TypedDict, total=False):
    """Which targets are wanted."""

    k: int
    """How many; fewer come only where no more are left. Default: 10."""
    exclude: Collection[int | str]
    """Ids of targets to leave out; unknown ones do no harm."""
    exclude_seen: bool
    """In u2i, leave out what the user has seen, in training or in the history given; in i2u, the
    users who have seen the item."""
    where: Any
    """Which targets may be found, by the columns of their table; see `serving.search.filters`."""
    min_score: float | None
    """Leave out targets that score less."""
    max_per: Mapping[str, int] | None
    """By a column of the targets' table, how many of them may have the same value at most, such as
    `{"brand": 2}`; see `serving.retrieval.diversity`."""
    diversity: float
    """From 0 to 1, how much it counts that targets are unlike each other; likewise. Default: 0."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Wanted:
    """The same with the defaults."""

    k: int = 10
    exclude: Collection[int | str] = ()
    exclude_seen: bool = False
    where: Any = None
    min_score: float | None = None
    max_per: Mapping[str, int] | None = None
    diversity: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """Which targets rank highest for each of n sources; checked, and ready to be answered."""

    direction: Direction
    rows: Rows
    """[n] the rows of the sources in their catalogue; -1 where the version does not have one."""
    packed: Mapping[str, NDArray[Any]] | None
    """The features of the sources as `Tower.pack` gives them; None: the stored vectors are used."""
    histories: Rows
    """[n, m] rows of the items in the histories of the sources; -1 pads, and stands for unknown
    items. Only filled where `exclude_seen` is set."""
    k: Rows
    """[n] how many targets each source is to be answered with."""
    width: int
    """The largest of `k`, which is the width of the answer if there are as many targets."""
    exclude: Rows
    """[n, m] rows of targets that a source must not be answered with; -1 pads."""
    exclude_seen: bool
    """Whether to leave out what a source has in training or in its history."""
    where: Filter | None
    """Which targets may be found; None: all of them."""
    min_score: float | None
    """The least score of a target; None: any."""

    diversity: Diversity | None = None
    """How unlike each other the targets are to be; None: it does not matter."""

    @property
    def size(self) -> int:
        """How many sources there are, n."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Hits:
    """The targets that were found for each of n sources, best first.

    Where a source has fewer than k, its row is padded: with `""` or the smallest int64 in `ids`,
    -inf in `scores` and -1 in `rows`.
    """

    ids: NDArray[Any]
    """[n, k] int64, or objects that are str."""
    scores: NDArray[np.float32]
    """[n, k]."""
    rows: NDArray[np.int64]
    """[n, k] the rows of the targets in their catalogue."""

    def to_frame(self) -> pd.DataFrame:
        """One row a target: `query` (the place of its source, from 0), `rank`, `id`, `score`."""
        query, column = np.nonzero(self.rows >= 0)
        return pd.DataFrame(
            {
                "query": query,
                "rank": column + 1,
                "id": self.ids[query, column],
                "score": self.scores[query, column],
            }
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook_html(self.to_frame())
