"""A question about n users or items, checked and ready to be answered, and its answer."""

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
    """Which targets rank highest for each of n sources."""

    direction: Direction
    rows: Rows
    """[n] the sources' rows, -1 for those that the version does not know."""
    packed: Mapping[str, NDArray[Any]] | None
    """The sources' features, as `Tower.pack` gives them; None: their stored vectors count."""
    histories: Rows
    """[n, m] items that the sources have by the features given, -1 for unknown ones."""
    k: Rows
    """[n] how many targets, each source's own."""
    width: int
    """The columns of the answer, if there are as many targets: the largest k."""
    exclude: Rows
    """[n, m] targets that are not wanted, -1 for unknown ones."""
    exclude_seen: bool
    where: Filter | None
    min_score: float | None

    @property
    def size(self) -> int:
        """How many sources, n."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Hits:
    """What was found for n sources, best first; `""` (the smallest int64), -inf and -1 pad."""

    ids: NDArray[Any]
    """[n, k] int64 or str objects."""
    scores: NDArray[np.float32]
    """[n, k]."""
    rows: NDArray[np.int64]
    """[n, k] rows of the target's table."""
