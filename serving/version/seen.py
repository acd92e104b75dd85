"""Seen: which items each user has chosen or judged, and so which users each item has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from serving.search.index import Pairs, Rows
from towers.errors import BundleError
from towers.features.schema import Side

COLUMNS = ["user_row", "item_row"]
"""The columns of the pairs in Parquet, int64."""

BLOCK = 2**20
"""Pairs that are read or written at once."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Pairs of a user and an item, by row."""

    matrix: scipy.sparse.csr_array
    """[n_users, n_items]; its stored entries are what users have chosen, from old to new."""
    judged: scipy.sparse.csr_array | None = None
    """Likewise, what they know without having chosen it: what they have rated low."""

    @classmethod
    def read(cls, path: Path, *, shape: tuple[int, int], judged: Path | None = None) -> Seen:
        """Read what `write_pairs` wrote, for so many users and items.

        Args:
            path: the pairs of what users have chosen.
            shape: the number of users, and of items.
            judged: the pairs of what else they know, if there are some.

        Raises:
            BundleError: a file is not such a table.
        """
        others = None if judged is None else _group(judged, shape=shape)
        return cls(_group(path, shape=shape), others)

    def write(self, path: Path) -> None:
        """Write what users have chosen as Parquet, in order of the users, and of their items."""
        write_pairs(path, _blocks(self.matrix))

    def of(self, source: Side, row: int) -> Rows:
        """The items that the user has chosen, from old to new (the users who chose the item).

        Row -1 has none.
        """
        return self.chosen(source, np.array([row]))[1]

    def chosen(self, source: Side, rows: Rows) -> Pairs:
        """What each of `rows` [n] has chosen, as places in `rows` and the rows of what was chosen.

        Rows that the pairs were not counted for, -1 among them, have nothing.
        """
        return _entries(self.matrix if source == "user" else self._by_item, rows)

    def pairs(self, source: Side, rows: Rows) -> Pairs:
        """What each of `rows` [n] has chosen or judged; otherwise as `chosen`, in any order."""
        chosen = self.chosen(source, rows)
        if self.judged is None:
            return chosen
        matrix = self.judged if source == "user" else self._judged_by_item
        judged = _entries(matrix, rows)
        return np.append(chosen[0], judged[0]), np.append(chosen[1], judged[1])

    @cached_property
    def _by_item(self) -> scipy.sparse.csr_array:
        return self.matrix.T.tocsr()

    @cached_property
    def _judged_by_item(self) -> scipy.sparse.csr_array:
        nothing = scipy.sparse.csr_array(self.matrix.shape, dtype=np.bool_)
        return (nothing if self.judged is None else self.judged).T.tocsr()


def _entries(matrix: scipy.sparse.csr_array, rows: Rows) -> Pairs:
    """The places in `rows` [n] and the columns of the entries of some rows, -1 for none."""
    places = np.flatnonzero((rows >= 0) & (rows < matrix.shape[0]))
    found = matrix[rows[places]].tocoo().coords
    return places[found[0]], found[1].astype(np.int64)


def write_pairs(path: Path, blocks: Iterable[Pairs]) -> None:
    """Write Parquet for `Seen.read`: `user_row` and `item_row`, int64, one row a pair.

    Args:
        path: the file.
        blocks: rows of users and, for each, of an item; one block is held at a time, and becomes
            row groups of its own. Users come in any order, the items of one from old to new.
    """
    with pq.ParquetWriter(path, pa.schema([(name, pa.int64()) for name in COLUMNS])) as writer:
        for block in blocks:
            arrays = [pa.array(rows, pa.int64()) for rows in block]
            writer.write_table(pa.table(arrays, names=COLUMNS))


def _blocks(matrix: scipy.sparse.csr_array) -> Iterator[Pairs]:
    """The stored entries of a matrix, in their order."""
    for start in range(0, matrix.nnz, BLOCK):
        items = matrix.indices[start : start + BLOCK].astype(np.int64)
        places = start + np.arange(len(items))
        yield np.searchsorted(matrix.indptr, places, side="right") - 1, items


def read_pairs(path: Path, *, shape: tuple[int, int]) -> Iterator[Pairs]:
    """Read what `write_pairs` wrote, for so many users and items, a block of pairs at a time.

    Raises:
        BundleError: the file is not such a table.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BLOCK, columns=COLUMNS):
                users, items = (column.to_numpy() for column in batch.columns)
                for rows, size in zip((users, items), shape, strict=True):
                    if len(rows) and not 0 <= rows.min() <= rows.max() < size:
                        raise ValueError(f"a row that is not in 0 to {size - 1}")
                if len(users):
                    yield users, items
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise BundleError(
            f"{path}: expected a Parquet file with the columns {COLUMNS}, rows of {shape[0]} "
            f"users and {shape[1]} items, received {error}; publish again, or roll back to "
            "another version"
        ) from None


def _group(path: Path, *, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """A matrix whose entries are the pairs of a file, a user's items in their order.

    SciPy's own way from pairs to a matrix would sort the items. Here the file is read twice, to
    count the items of each user and to put them where they belong, so that nothing is held but the
    matrix and a block of pairs. Rows are of 32 bits where that is enough for them and the pairs.

    Raises:
        BundleError: as `read_pairs`.
    """
    ends: NDArray[Any] = np.zeros(shape[0] + 1, dtype=np.int64)
    for users, _ in read_pairs(path, shape=shape):
        low = users.min()
        counts = np.bincount(users - low)
        ends[low + 1 : low + 1 + len(counts)] += counts
    np.cumsum(ends, out=ends)
    size = int(ends[-1])
    narrow = np.int32 if max(size, *shape) <= np.iinfo(np.int32).max else np.int64
    starts: NDArray[Any] = ends.astype(narrow)
    free, items = starts[:-1].copy(), np.empty(size, dtype=narrow)
    for users, rows in read_pairs(path, shape=shape):
        low = users.min()
        counts = np.bincount(users - low)
        here = free[low : low + len(counts)]
        places = np.repeat(here - np.cumsum(counts) + counts, counts) + np.arange(len(users))
        items[places] = rows[np.argsort(users, kind="stable")]
        here += counts.astype(narrow)
    ones = np.ones(size, dtype=np.bool_)
    return scipy.sparse.csr_array((ones, items, starts), shape=shape)
