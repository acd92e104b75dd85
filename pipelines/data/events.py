"""Events: what some users did, and the block of all that is known of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.behaviours import Behaviours, count_as_seen, with_role
from towers.features.kinds import History

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Events:
    """All that some users did, each [m]; ascending by user, a user's from old to new."""

    users: Rows
    """Places of the users in their block."""
    items: Rows
    """Item rows."""
    times: NDArray[np.float64]
    """NaN where there are none."""
    weights: NDArray[np.float32]
    behaviours: NDArray[np.int8]
    """Codes."""
    positive: NDArray[np.bool_]
    """Whether it is a positive; these are in the order of the entries of `Block.matrix`."""
    moments: NDArray[np.int32]
    """The rows of their contexts; 0 where there are none."""

    def of(self, is_taken: NDArray[np.bool_]) -> Events:
        """Those of some users, who are numbered anew; `is_taken` [n_users]."""
        kept, numbers = is_taken[self.users], np.cumsum(is_taken) - 1
        parts = {one.name: getattr(self, one.name)[kept] for one in dataclasses.fields(self)}
        return Events(**parts | {"users": numbers[parts["users"]]})

    def matrix(
        self,
        kept: NDArray[np.bool_],
        *,
        shape: tuple[int, int],
        values: NDArray[Any] | None = None,
    ) -> sparse.csr_array:
        """The weights of some events, or other values, by user and item; from old to new."""
        values = self.weights if values is None else values
        sizes = np.bincount(self.users[kept], minlength=shape[0])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        dtype = np.int32 if max(starts[-1], *shape) <= np.iinfo(np.int32).max else np.int64
        parts = (values[kept], self.items[kept].astype(dtype), starts.astype(dtype))
        return sparse.csr_array(parts, shape=shape)


@dataclass(frozen=True, eq=False)
class Block:
    """Some users, and all that they interacted with."""

    users: Rows
    """Rows of the users [n], ascending; also those without interactions."""
    matrix: sparse.csr_array
    """Weights of their positives [n, n_items] float32; a user's items from old to new."""
    events: Events | None = None
    """What they did, positives included; None where they have nothing but positives."""
    behaviours: Behaviours = field(default_factory=dict)
    """What the codes of events mean."""
    times: NDArray[np.float64] | None = None
    """The time of each entry of `matrix`; None where there are no times."""

    def take(self, places: Rows) -> Block:
        """The same of the users at some places [m], ascending."""
        if len(places) == len(self.users):
            return self
        sizes = np.diff(self.matrix.indptr)
        is_taken = np.zeros(len(self.users), dtype=np.bool_)
        is_taken[places] = True
        times = None if self.times is None else self.times[np.repeat(is_taken, sizes)]
        events = None if self.events is None else self.events.of(is_taken)
        return Block(self.users[places], self.matrix[places], events, self.behaviours, times)

    @cached_property
    def judged(self) -> sparse.csr_array | None:
        """What they know without a positive, [n, n_items]; None where that is nothing."""
        if self.events is None:
            return None
        known = count_as_seen(self.behaviours)[self.events.behaviours]
        return self.events.matrix(known & ~self.events.positive, shape=self.matrix.shape)

    @cached_property
    def turned_down(self) -> sparse.csr_array | None:
        """Weights of the explicit negatives, [n, n_items]; an item with a positive is none.

        A user's are ascending by item, whatever the order of the events; None where there are
        none.
        """
        if self.events is None:
            return None
        is_negative = with_role(self.behaviours, "negative")[self.events.behaviours]
        if not is_negative.any():
            return None
        found = self.events.matrix(is_negative, shape=self.matrix.shape)
        found.sum_duplicates()
        chosen = self.matrix.astype(np.bool_)
        chosen.sum_duplicates()
        return sparse.csr_array(found - found.multiply(chosen))

    @cached_property
    def moments(self) -> NDArray[np.int32]:
        """The row of the context of each entry of `matrix`, 0 where there is none."""
        if self.events is None:
            return np.zeros(self.matrix.nnz, dtype=np.int32)
        return self.events.moments[self.events.positive]

    def seen(self) -> sparse.csr_array:
        """What each of them knows, [n, n_items] bool."""
        positives = self.matrix.astype(np.bool_)
        if self.judged is None:
            return positives
        return sparse.csr_array(positives + self.judged.astype(np.bool_))


def past_of(block: Block, history: History) -> sparse.csr_array:
    """The items of a history of behaviours, [n, n_items], with the time of each as its value.

    A user's are from old to new; one that comes by several behaviours comes as often.
    """
    names = list(block.behaviours)
    codes = [names.index(name) for name in history.behaviours or () if name in names]
    if block.events is None or not codes:
        return sparse.csr_array(block.matrix.shape, dtype=np.float64)
    events = block.events
    kept = np.isin(events.behaviours, codes)
    return events.matrix(kept, shape=block.matrix.shape, values=events.times)
