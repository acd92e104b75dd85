"""Queries: which users a batch asks for, and at which moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.events import Block
from pipelines.training.past_events import expand
from serving.search.index import contains


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
        moments = np.where(is_dropped[query], -1, block.moments[entry])
        pairs = np.unique(np.stack([query[mine], moments[mine]]), axis=1)
        return Queries(self.places[pairs[0]], self.folds[pairs[0]], pairs[1].astype(np.int64))

    def draw_turned_down(
        self, block: Block, rng: np.random.Generator, *, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Draw explicit negatives of the queries' users: item rows [n, count], and their weights.

        An item may come more than once; -1 where a user has none. One column of -1 for no count.
        """
        turned_down = block.turned_down
        if turned_down is None or not count:
            nothing = np.full((len(self.places), 1), -1, dtype=np.int64)
            return nothing, np.zeros(nothing.shape, dtype=np.float32)
        starts = turned_down.indptr[self.places].astype(np.int64)[:, np.newaxis]
        sizes = turned_down.indptr[self.places + 1].astype(np.int64)[:, np.newaxis] - starts
        entry = starts + (rng.random((len(self.places), count)) * sizes).astype(np.int64)
        items = np.append(turned_down.indices, -1).astype(np.int64)[entry]
        weights = np.append(turned_down.data, 0.0).astype(np.float32)[entry]
        return np.where(sizes > 0, items, -1), np.where(sizes > 0, weights, np.float32(0.0))


def filled(
    items: NDArray[np.int64], codes: NDArray[np.intp]
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Put the first codes in place of item rows that are not -1, and give the codes left over."""
    found = np.full(items.shape, -1, dtype=np.int32)
    n = int(np.count_nonzero(items >= 0))
    found[items >= 0] = codes[:n]
    return found, codes[n:]


def times_of(block: Block, entries: NDArray[np.int64]) -> NDArray[np.float64]:
    """The times of some entries of a block's matrix, [n]; NaN where there are none."""
    return np.full(len(entries), np.nan) if block.times is None else block.times[entries]


def asked_at(
    block: Block, query: NDArray[np.int64], entries: NDArray[np.int64], *, n_queries: int
) -> NDArray[np.float64]:
    """When each query asks, [n_queries]: the time of the latest positive of its fold.

    NaN without times.

    Args:
        block: the queries' block.
        query: the query of each positive, [n].
        entries: the entry of each in the block's matrix, [n].
        n_queries: how many queries there are.
    """
    if block.times is None:
        return np.full(n_queries, np.nan)
    asked = np.full(n_queries, -np.inf)
    np.maximum.at(asked, query, times_of(block, entries))
    return asked


def positions_in(
    shared: NDArray[np.int64], query: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Pair each query with the positions of its own items among the shared negatives; [n, 2]."""
    hit = contains(shared, item)
    at = np.searchsorted(shared, item[hit])
    return np.stack([query[hit], at], axis=1).astype(np.int32)
