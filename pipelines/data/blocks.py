"""Blocks: who interacted with what, by row, a part of the users at a time.

Everything that reads interactions reads them in blocks, so that it does not matter to it whether
they are held in memory, as one block, or stored on disk, in as many as keep each of them small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.behaviours import Behaviours
from pipelines.data.events import Block, Events, Rows

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, Part, Part] = ("train", "validation", "test")
"""The parts of a split, by their codes 0, 1 and 2."""


class Interactions(Protocol):
    """Positives of users and items; every user is in one block."""

    @property
    def shape(self) -> tuple[int, int]:
        """The number of users, and of items."""
        ...

    @property
    def has_times(self) -> bool:
        """Whether a user's items are in order of time, rather than in any order."""
        ...

    @property
    def has_events(self) -> bool:
        """Whether users have done something else than positives."""
        ...

    @property
    def user_counts(self) -> Rows:
        """The number of positives of each user, [n_users]."""
        ...

    @property
    def item_counts(self) -> Rows:
        """The number of positives of each item, [n_items]."""
        ...

    @property
    def block_of_user(self) -> NDArray[np.int32]:
        """The number of each user's block, [n_users]."""
        ...

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        ...

    def block(self, number: int) -> Block:
        """Read a block; its number is from 0 on."""
        ...

    def of(self, users: Rows) -> sparse.csr_array:
        """The positives of some user rows, ascending; [n_users, n_items], others' rows empty."""
        ...

    def seen_of(self, users: Rows) -> sparse.csr_array:
        """What some user rows know: the positives, and what they have judged otherwise.

        As `of`, but bool.
        """
        ...


@dataclass(frozen=True, eq=False)
class HeldInteractions:
    """Positives in memory, as one block."""

    matrix: sparse.csr_array
    """Weights [n_users, n_items] float32; a user's items from old to new."""
    has_times: bool = False
    events: Events | None = None
    """What users did, positives included; None where that is nothing else."""
    behaviours: Behaviours = field(default_factory=dict)
    """What the codes of events mean."""
    times: NDArray[np.float64] | None = None
    """The time of each entry of `matrix`; None where there are no times."""

    n_blocks = 1

    @property
    def has_events(self) -> bool:
        """Whether users have done something else than positives."""
        return self.events is not None

    @property
    def shape(self) -> tuple[int, int]:
        """The number of users, and of items."""
        n_users, n_items = self.matrix.shape
        return n_users, n_items

    @cached_property
    def user_counts(self) -> Rows:
        """The number of positives of each user, [n_users]."""
        return np.diff(self.matrix.indptr).astype(np.int64)

    @cached_property
    def item_counts(self) -> Rows:
        """The number of positives of each item, [n_items]."""
        return np.bincount(self.matrix.indices, minlength=self.shape[1]).astype(np.int64)

    @property
    def block_of_user(self) -> NDArray[np.int32]:
        """Block 0, [n_users]."""
        return np.zeros(self.shape[0], dtype=np.int32)

    def block(self, number: int) -> Block:
        """The one block, 0."""
        del number
        return self._block

    def of(self, users: Rows) -> sparse.csr_array:
        """The positives of some user rows, ascending; [n_users, n_items], others' rows empty."""
        return self._rows(self.matrix, users)

    def seen_of(self, users: Rows) -> sparse.csr_array:
        """What some user rows know, positive or not; see `Interactions.seen_of`."""
        return self._rows(self._block.seen(), users)

    @cached_property
    def _block(self) -> Block:
        users = np.arange(self.shape[0])
        return Block(users, self.matrix, self.events, self.behaviours, self.times)

    def _rows(self, matrix: sparse.csr_array, users: Rows) -> sparse.csr_array:
        if len(users) == self.shape[0]:
            return matrix
        return spread(matrix[users], users, n_users=self.shape[0])


def every_positive(interactions: Interactions) -> sparse.csr_array:
    """The positives of all users as one matrix [n_users, n_items]; held in memory."""
    return interactions.of(np.arange(interactions.shape[0]))


def sample_users(interactions: Interactions, *, limit: int, seed: int) -> sparse.csr_array:
    """The positives of at most `limit` users who have some; [n_users, n_items], others' rows empty.

    The same users for the same seed.
    """
    users = np.flatnonzero(interactions.user_counts)
    if len(users) <= limit:
        return every_positive(interactions)
    drawn = np.random.default_rng(seed).choice(users, limit, replace=False)
    return interactions.of(np.sort(drawn))


def left_out(
    interactions: Interactions, users: Rows, *, what: Literal["seen", "positives"]
) -> sparse.csr_array:
    """What is not to be recommended to some user rows: as `of`, or as `seen_of`."""
    return interactions.seen_of(users) if what == "seen" else interactions.of(users)


def first_times(interactions: Interactions) -> NDArray[np.float64] | None:
    """The time of each item's first positive, [n_items]; infinite without one, None without times.

    One block is held at a time.
    """
    found = np.full(interactions.shape[1], np.inf)
    for block in all_blocks(interactions):
        if block.times is None:
            return None
        np.fmin.at(found, block.matrix.indices, block.times)
    return found


def there_from(available: NDArray[np.float64], interactions: Interactions) -> NDArray[np.float64]:
    """The time from which each item is there, [n_items]; minus infinity where none is known.

    It is that of the table of items or, where that came earlier, of the first interaction. Of an
    item without one in the table nothing tells whether it was there before anybody chose it.

    Args:
        available: the times of the table, NaN where it has none.
        interactions: what tells of items that were chosen before.
    """
    chosen = first_times(interactions)
    earlier = available if chosen is None else np.fmin(available, chosen)
    return np.where(np.isnan(available), -np.inf, earlier)


def latest_times(interactions: Interactions) -> NDArray[np.float64]:
    """The time of each user's latest positive, [n_users]; infinite where none is known.

    One block is held at a time.
    """
    found = np.full(interactions.shape[0], -np.inf)
    for block in all_blocks(interactions):
        if block.times is not None:
            users = np.repeat(block.users, np.diff(block.matrix.indptr))
            np.fmax.at(found, users, block.times)
    return np.where(np.isfinite(found), found, np.inf)


def all_blocks(interactions: Interactions, order: Sequence[int] | None = None) -> Iterator[Block]:
    """Read the blocks, one at a time, by default in the order of their numbers."""
    for number in range(interactions.n_blocks) if order is None else order:
        yield interactions.block(int(number))


def blocks_with(interactions: Interactions, users: Rows) -> Iterator[Block]:
    """Read all that is known of some user rows, and of no others; one block at a time."""
    for number in np.unique(interactions.block_of_user[users]):
        block = interactions.block(int(number))
        yield block.take(np.flatnonzero(np.isin(block.users, users)))


def ids_of(table: pd.DataFrame, column: str) -> NDArray[Any]:
    """Take a table's ids as int64 or str objects."""
    values = table[column]
    return values.to_numpy(np.int64 if pd.api.types.is_integer_dtype(values.dtype) else object)


def spread(matrix: sparse.csr_array, rows: Rows, *, n_users: int) -> sparse.csr_array:
    """Give each row of `matrix` its place among all users; `rows` are ascending."""
    sizes = np.zeros(n_users, dtype=np.int64)
    sizes[rows] = np.diff(matrix.indptr)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_array((matrix.data, matrix.indices, starts), shape=(n_users, matrix.shape[1]))
