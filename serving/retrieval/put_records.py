"""PutRecords: the records that were put into a table since it was published, by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serving.search.filters import Filter, matches
from serving.search.growing_array import GrowingArray, RowNumbers
from serving.search.index import Rows

WASTE = 2
"""The table is made anew when it has this many times as many records as count."""


class PutRecords:
    """Records by row, and a table of their columns that grows with them.

    The table is a few pieces, each at least twice as long as the next, so that a record that is put
    in costs no more where many have been put in before.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Hold none yet; `schema` has the columns."""
        self._schema = schema
        self._records: dict[int, Mapping[str, Any]] = {}
        self._pieces: list[pa.Table] = []
        self._rows: GrowingArray[np.int64] = GrowingArray(np.empty(0, dtype=np.int64))
        """The row of each record in the pieces; of several of a row, the last counts."""
        self._places = RowNumbers(np.empty(0, dtype=np.int64))
        """The place of each row's record in the pieces."""

    def __len__(self) -> int:
        return len(self._records)

    def get(self, row: int) -> Mapping[str, Any]:
        """The record of a row; nothing where none was put."""
        return self._records.get(row, {})

    def has(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows have a record."""
        found: NDArray[np.bool_] = self._places.of(rows) >= 0
        return found

    def put(self, rows: Rows, records: Sequence[Mapping[str, Any]]) -> None:
        """Put records in for different rows, in place of those they had."""
        if not len(rows):
            return
        self._records |= zip(rows.tolist(), records, strict=True)
        places = len(self._rows) + np.arange(len(rows))
        self._rows.put(places, rows)
        self._places.put(rows, places)
        self._pieces.append(self._table(records))
        while len(self._pieces) > 1 and len(self._pieces[-2]) < 2 * len(self._pieces[-1]):
            last, before = self._pieces.pop(), self._pieces.pop()
            self._pieces.append(_join([before, last]).combine_chunks())
        if len(self._rows) > WASTE * len(self._records) + len(records):
            self._drop_waste()

    def take(self, rows: Rows, names: Sequence[str]) -> pa.Table:
        """The columns of rows that have a record, in the order of the rows."""
        pieces = _join([piece.select(list(names)) for piece in self._pieces])
        return pieces.take(pa.array(self._places.of(rows)))

    def all(self) -> tuple[Rows, pa.Table]:
        """Every row that has a record, [n], and their columns."""
        if not self._pieces:
            return np.empty(0, dtype=np.int64), self._schema.empty_table()
        rows = np.fromiter(self._records, dtype=np.int64)
        return rows, self.take(rows, self._schema.names)

    def matching(self, where: Filter) -> tuple[Rows, NDArray[np.bool_]]:
        """Rows, and for each whether its record matches a filter; the last of a row counts.

        Raises:
            QueryError: a column does not exist, or a value is not of its type.
        """
        found = [matches(where, partial(_column, piece), size=len(piece)) for piece in self._pieces]
        return self._rows.values, np.concatenate(found) if found else np.empty(0, np.bool_)

    def _drop_waste(self) -> None:
        """Keep only the records that count."""
        rows, table = self.all()
        self._pieces = [table.combine_chunks()]
        self._rows = GrowingArray(rows)
        self._places.put(rows, np.arange(len(rows)))

    def _table(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        return pa.table(
            {
                field.name: _array([record.get(field.name) for record in records], field.type)
                for field in self._schema
            }
        )


def _column(piece: pa.Table, name: str) -> pa.Array:
    return piece[name].combine_chunks()


def _join(pieces: Sequence[pa.Table]) -> pa.Table:
    """Tables one after another; a column of integers in one and floats in another has floats."""
    return pa.concat_tables(pieces, promote_options="permissive")


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The values of a column, as floats where not all are integers as those published."""
    if pa.types.is_integer(kind) and any(isinstance(value, float) for value in values):
        kind = pa.float64()
    return pa.array(values, kind)
