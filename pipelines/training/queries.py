"""Queries: which users a batch asks for, and at which moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.events import Block
from pipelines.training.past_events import expand


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries of a block, each [n]: their positives are those of a fold, at a moment if any."""

    places: NDArray[np.int64]
    """The places of their users in the block."""
    folds: NDArray[np.int64]
    """The number of the fold."""
    moments: NDArray[np.int64]
    """The row of the context; -1 for a query without one, at whatever moment its positives are."""

    def are_at(self, moments: NDArray[np.int32], query: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether entries at `moments` [m] are at the moment of their queries, `query` [m]."""
        asked = self.moments[query]
        return np.asarray((asked < 0) | (asked == moments))

    def by_moment(
        self, block: Block, folds: NDArray[np.int64], *, is_dropped: NDArray[np.bool_]
    ) -> Queries:
        """Divide each query by the moments of its positives, but those that drop their context.

        Args:
            block: theirs.
            folds: the fold of each entry of the block.
            is_dropped: [n].
        """
        query, entry = expand(block.matrix, self.places)
        mine = folds[entry] == self.folds[query]
        moments = np.where(is_dropped[query], -1, block.moments()[entry])
        pairs = np.unique(np.stack([query[mine], moments[mine]]), axis=1)
        return Queries(self.places[pairs[0]], self.folds[pairs[0]], pairs[1].astype(np.int64))
