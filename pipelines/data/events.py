"""Events: what some users did, and the block of all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.behaviours import Behaviours, count_as_seen, with_role

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

    def matrix(self, kept: NDArray[np.bool_], *, shape: tuple[int, int]) -> sparse.csr_array:
        """The weights of some events by user and item; a user's entries from old to new."""
        sizes = np.bincount(self.users[kept], minlength=shape[0])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        dtype = np.int32 if max(starts[-1], *shape) <= np.iinfo(np.int32).max else np.int64
        parts = (self.weights[kept], self.items[kept].astype(dtype), starts.astype(dtype))
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

        None where there are none.
        """
        if self.events is None:
            return None
        is_negative = with_role(self.behaviours, "negative")[self.events.behaviours]
        if not is_negative.any():
            return None
        found = self.events.matrix(is_negative, shape=self.matrix.shape)
        return sparse.csr_array(found - found.multiply(self.matrix.astype(np.bool_)))

    def seen(self) -> sparse.csr_array:
        """What each of them knows, [n, n_items] bool."""
        positives = self.matrix.astype(np.bool_)
        if self.judged is None:
            return positives
        return sparse.csr_array(positives + self.judged.astype(np.bool_))
