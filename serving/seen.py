"""Seen: which items each user has interacted with, and so which users each item has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

from serving.index import Pairs, Rows
from towers.errors import BundleError
from towers.schema import Side

COLUMNS = ["user_row", "item_row"]
"""The columns of the pairs in Parquet, int64."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Pairs of a user and an item, by row."""

    matrix: scipy.sparse.csr_array
    """[n_users, n_items]; its stored entries are the pairs, a user's items from old to new."""

    @classmethod
    def read(cls, path: Path, *, shape: tuple[int, int]) -> Seen:
        """Read what `write` wrote, for so many users and items.

        Raises:
            BundleError: the file is not such a table.
        """
        try:
            table = pq.read_table(path, columns=COLUMNS)
            users, items = (table[name].to_numpy() for name in COLUMNS)
            return cls(_ordered_pairs(users, items, shape=shape))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise BundleError(
                f"{path}: expected a Parquet file with the columns {COLUMNS}, rows of {shape[0]} "
                f"users and {shape[1]} items, received {error}; publish again, or roll back to "
                "another version"
            ) from None

    def write(self, path: Path) -> None:
        """Write Parquet: `user_row` and `item_row`, int64, one row a pair, in order of the users.

        The items of one user stay in their order.
        """
        rows = self.matrix.tocoo().coords
        arrays = [pa.array(values, pa.int64()) for values in rows]
        pq.write_table(pa.table(arrays, names=COLUMNS), path)

    def of(self, source: Side, row: int) -> Rows:
        """The items that the user has, from old to new (the users that the item has).

        Row -1 has none.
        """
        return self.pairs(source, np.array([row]))[1]

    def pairs(self, source: Side, rows: Rows) -> Pairs:
        """What each of `rows` [n] has, as their places in `rows` and the rows of what they have.

        Rows that the pairs were not counted for, -1 among them, have nothing.
        """
        matrix = self.matrix if source == "user" else self._by_item
        places = np.flatnonzero((rows >= 0) & (rows < matrix.shape[0]))
        found = matrix[rows[places]].tocoo().coords
        return places[found[0]], found[1].astype(np.int64)

    @cached_property
    def _by_item(self) -> scipy.sparse.csr_array:
        return self.matrix.T.tocsr()


def _ordered_pairs(users: Rows, items: Rows, *, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """A matrix whose entries are the pairs, a user's items in the order given.

    SciPy's own way from pairs to a matrix would sort them.

    Raises:
        ValueError: a row is out of range.
    """
    for rows, size in zip((users, items), shape, strict=True):
        if len(rows) and not 0 <= rows.min() <= rows.max() < size:
            raise ValueError(f"a row that is not in 0 to {size - 1}")
    order = np.argsort(users, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=shape[0]))])
    ones = np.ones(len(users), dtype=np.bool_)
    return scipy.sparse.csr_array((ones, items[order], starts), shape=shape)
