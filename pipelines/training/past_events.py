"""What users had done before the positives of a query, as their histories of behaviours have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.events import Block, past_of
from serving.search.index import Pairs
from towers.features.kinds import History


@dataclass(frozen=True, eq=False)
class PastEvents:
    """What the users of a block did, as a history of theirs has it."""

    matrix: sparse.csr_array
    """The time of each event, [n, n_items], NaN where there is none; see `past_of`."""
    returns: bool
    """Whether an item of it may be recommended, as it does not count as seen."""

    def before(
        self, begins: NDArray[np.float64], places: NDArray[np.int64], *, positives: Pairs
    ) -> Pairs:
        """List the events of some queries, as query and item, from old to new.

        A positive of a query is not among them, unless it could be recommended with them.

        Args:
            begins: the time [n] before which an event counts; infinity where all do.
            places: of the queries' users in the block [n].
            positives: queries and items [m].
        """
        query, entry = expand(self.matrix, places)
        item = self.matrix.indices[entry].astype(np.int64)
        times = self.matrix.data[entry]
        is_timed = np.isfinite(times)
        kept = np.where(is_timed, times, -np.finfo(np.float64).max) < begins[query]
        n_items = self.matrix.shape[1]
        own = np.isin(query * n_items + item, positives[0] * n_items + positives[1])
        kept &= ~own | (self.returns & is_timed & np.isfinite(begins[query]))
        return query[kept], item[kept]


def past_events(block: Block, histories: Sequence[History]) -> dict[str, PastEvents]:
    """What a block's users did in each history of behaviours, by its name."""
    found = {}
    for history in histories:
        if history.behaviours is not None:
            given = [block.behaviours[name] for name in history.behaviours]
            returns = not any(behaviour.seen for behaviour in given)
            found[history.name] = PastEvents(past_of(block, history), returns=returns)
    return found


def expand(
    matrix: sparse.csr_array, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the entries of some rows of a matrix: position in `rows`, and entry."""
    starts = matrix.indptr[rows].astype(np.int64)
    sizes = matrix.indptr[rows + 1] - starts
    position = np.repeat(np.arange(len(rows)), sizes)
    offset = np.arange(len(position)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return position, np.repeat(starts, sizes) + offset
