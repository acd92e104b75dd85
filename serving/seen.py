"""Seen: which items each user has interacted with, and so which users each item has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse

from serving.index import Rows
from towers.errors import BundleError
from towers.schema import Side

COLUMNS = ["user_row", "item_row"]
"""The columns of the pairs in Parquet, int64."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Pairs of a user and an item, by row."""

    matrix: scipy.sparse.csr_array
    """[n_users, n_items]; its stored entries are the pairs."""

    @classmethod
    def read(cls, path: Path, *, shape: tuple[int, int]) -> Seen:
        """Read what `write` wrote, for so many users and items.

        Raises:
            BundleError: the file is not such a table.
        """
        try:
            table = pq.read_table(path, columns=COLUMNS)
            rows = tuple(table[name].to_numpy() for name in COLUMNS)
            ones = np.ones(table.num_rows, dtype=np.bool_)
            return cls(scipy.sparse.csr_array((ones, rows), shape=shape))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise BundleError(
                f"{path}: expected a Parquet file with the columns {COLUMNS}, rows of {shape[0]} "
                f"users and {shape[1]} items, received {error}; publish again, or roll back to "
                "another version"
            ) from None

    def write(self, path: Path) -> None:
        """Write Parquet: `user_row` and `item_row`, int64, one row a pair, in order of both."""
        rows = self.matrix.tocoo().coords
        arrays = [pa.array(values, pa.int64()) for values in rows]
        pq.write_table(pa.table(arrays, names=COLUMNS), path)

    def of(self, source: Side, row: int) -> Rows:
        """The items that the user has (the users that the item has); row -1 has none."""
        matrix = self.matrix if source == "user" else self._by_item
        if row < 0:
            return np.empty(0, dtype=np.int64)
        return matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]].astype(np.int64)

    @cached_property
    def _by_item(self) -> scipy.sparse.csr_array:
        return self.matrix.T.tocsr()
