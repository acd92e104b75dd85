"""Store blocks: interactions on disk, a Parquet file for the users of each block."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from pipelines.behaviours import Behaviour, Behaviours
from pipelines.data.blocks import PARTS, Part, spread
from pipelines.data.events import Block, Events, Rows

SCHEMA = pa.schema(
    {
        "user_row": pa.int32(),
        "item_row": pa.int32(),
        "weight": pa.float32(),
        "part": pa.int8(),
        "timestamp": pa.float64(),
        "behaviour": pa.int8(),
        "moment": pa.int32(),
        "is_positive": pa.bool_(),
    }
)
"""The columns of a stored block; the time is null where there is none.

Rows that are no positives are what else users did: of each behaviour with an item the first.
"""

SHAPE = "blocks.json"
BLOCK_OF_USER = "block_of_user.npy"
USER_COUNTS = "user_counts.npy"
ITEM_COUNTS = "item_counts.npy"


@dataclass(frozen=True, eq=False)
class StoredInteractions:
    """Positives on disk, of one or more parts of a split."""

    folder: Path
    """What `write_block` and `finish_blocks` wrote."""
    parts: tuple[Part, ...]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The number of users, and of items."""
        return self._described["n_users"], self._described["n_items"]

    @property
    def has_times(self) -> bool:
        """Whether a user's items are in order of time, rather than in any order."""
        return bool(self._described["has_times"])

    @property
    def has_events(self) -> bool:
        """Whether users have done something else than positives."""
        return bool(self._described["has_events"])

    @cached_property
    def behaviours(self) -> Behaviours:
        """What the codes of events mean."""
        described = self._described["behaviours"]
        return {name: Behaviour(**settings) for name, settings in described.items()}

    @cached_property
    def user_counts(self) -> Rows:
        """The number of positives of each user, [n_users]."""
        return self._counts(USER_COUNTS)

    @cached_property
    def item_counts(self) -> Rows:
        """The number of positives of each item, [n_items]."""
        return self._counts(ITEM_COUNTS)

    @cached_property
    def block_of_user(self) -> NDArray[np.int32]:
        """The number of each user's block, [n_users]."""
        return np.asarray(np.load(self.folder / BLOCK_OF_USER))

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return int(self._described["n_blocks"])

    def rows(self) -> dict[str, NDArray[Any]]:
        """All positives by the columns of `SCHEMA`, a user's from old to new; held in memory."""
        blocks = [self._columns(number, SCHEMA.names) for number in range(self.n_blocks)]
        return {
            name: np.concatenate([block[name][block["is_positive"]] for block in blocks])
            for name in SCHEMA.names
        }

    def block(self, number: int) -> Block:
        """Read a block."""
        users = np.flatnonzero(self.block_of_user == number)
        columns = self._columns(number, SCHEMA.names)
        events = Events(
            users=np.searchsorted(users, columns["user_row"]),
            items=columns["item_row"].astype(np.int64),
            times=columns["timestamp"].astype(np.float64),
            weights=columns["weight"],
            behaviours=columns["behaviour"],
            positive=columns["is_positive"],
            moments=columns["moment"],
        )
        matrix = events.matrix(events.positive, shape=(len(users), self.shape[1]))
        times = events.times[events.positive] if self.has_times else None
        return Block(users, matrix, events if self.has_events else None, self.behaviours, times)

    def item_times(self, number: int) -> tuple[Rows, NDArray[np.float64]]:
        """The items and the times of a block's positives, [n] each; times are NaN without any."""
        columns = self._columns(number, ["item_row", "timestamp", "is_positive"])
        positive = columns["is_positive"]
        items, times = columns["item_row"][positive], columns["timestamp"][positive]
        return items.astype(np.int64), times.astype(np.float64)

    def of(self, users: Rows) -> sparse.csr_array:
        """The positives of some user rows, ascending; [n_users, n_items], others' rows empty."""
        return self._gather(users, lambda block: block.matrix)

    def seen_of(self, users: Rows) -> sparse.csr_array:
        """What some user rows know, positive or not; see `Interactions.seen_of`."""
        return self._gather(users, Block.seen)

    def _gather(self, users: Rows, matrix: Callable[[Block], sparse.csr_array]) -> sparse.csr_array:
        """Put together the rows of some users from the matrices of their blocks."""
        nothing = (np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(1, np.int32))
        found = [sparse.csr_array(nothing, shape=(0, self.shape[1]))]
        order = [users[:0]]
        for number in np.unique(self.block_of_user[users]):
            block = self.block(int(number))
            chosen = np.flatnonzero(np.isin(block.users, users))
            found.append(matrix(block)[chosen])
            order.append(block.users[chosen])
        rows = np.concatenate(order)
        ascending = np.argsort(rows)
        joined = sparse.csr_array(sparse.vstack(found, format="csr"))[ascending]
        return spread(joined, rows[ascending], n_users=self.shape[0])

    @cached_property
    def _described(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / SHAPE).read_text(encoding="utf-8"))
        return found

    def _counts(self, name: str) -> Rows:
        counts = np.load(self.folder / name)
        return np.asarray(counts[[PARTS.index(part) for part in self.parts]].sum(axis=0))

    def _columns(self, number: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some columns of a block's rows, those of the parts alone."""
        table = pq.read_table(block_file(self.folder, number), columns=list({*names, "part"}))
        codes = [PARTS.index(part) for part in self.parts]
        kept = np.isin(table["part"].to_numpy(), codes)
        return {name: table[name].to_numpy()[kept] for name in names}


def write_block(path: Path, rows: pa.Table) -> None:
    """Write a block: the columns of `SCHEMA`, ascending by user, a user's from old to new."""
    pq.write_table(rows.select(SCHEMA.names).cast(SCHEMA), path)


def finish_blocks(
    folder: Path,
    *,
    block_of_user: NDArray[np.int32],
    n_items: int,
    n_blocks: int,
    has_times: bool,
    behaviours: Behaviours,
    has_context: bool = False,
) -> None:
    """Count the positives of stored blocks, and write what `StoredInteractions` needs beside."""
    n_users = len(block_of_user)
    user_counts = np.zeros((len(PARTS), n_users), dtype=np.int64)
    item_counts = np.zeros((len(PARTS), n_items), dtype=np.int64)
    has_events = len(behaviours) > 1 or has_context
    for number in range(n_blocks):
        names = ["user_row", "item_row", "part", "is_positive"]
        table = pq.read_table(block_file(folder, number), columns=names)
        users, items, part, positive = (column.to_numpy() for column in table.columns)
        has_events |= not positive.all()
        for code in range(len(PARTS)):
            chosen = positive & (part == code)
            user_counts[code] += np.bincount(users[chosen], minlength=n_users)
            item_counts[code] += np.bincount(items[chosen], minlength=n_items)
    np.save(folder / BLOCK_OF_USER, block_of_user)
    np.save(folder / USER_COUNTS, user_counts)
    np.save(folder / ITEM_COUNTS, item_counts)
    described = {
        "n_users": n_users,
        "n_items": n_items,
        "n_blocks": n_blocks,
        "has_times": has_times,
        "has_events": has_events,
        "behaviours": {name: dataclasses.asdict(one) for name, one in behaviours.items()},
    }
    (folder / SHAPE).write_text(json.dumps(described), encoding="utf-8")


def block_file(folder: Path, number: int) -> Path:
    """Where a block lies in the folder of all."""
    return folder / f"block-{number:05d}.parquet"
