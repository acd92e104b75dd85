"""A question: which targets rank highest for each of n users or items; and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.search.filters import Filter
from serving.search.index import Rows
from towers.directions import Direction


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
