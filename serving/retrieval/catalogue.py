"""Catalogue: the users or the items that a loaded version can find.

Each has a row. A version is published with the first rows; what is put in later has the next ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from serving.retrieval.put_records import PutRecords
from serving.search.column_values import is_list, read_cell
from serving.search.filters import SHOWN_VALUES, Filter, matches
from serving.search.growing_array import GrowingArray
from serving.search.index import Rows, Vectors
from serving.version.embeddings import Embeddings
from towers.errors import QueryError
from towers.features.lists import cut_lists
from towers.features.packer import Input
from towers.features.values import number_of


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A catalogue as it is at one moment, whatever changes later."""

    published: Embeddings
    put: Rows
    """[n] the rows that were put since, which count in place of what was published."""
    fresh: pa.Table
    """The table's columns of `put`."""
    is_present: NDArray[np.bool_]
    """Which rows can be found, [size]."""


class Catalogue:
    """The users or the items. An id keeps its row for good, even while it is removed."""

    def __init__(self, published: Embeddings) -> None:
        """Start with what a version published."""
        self.published = published
        self.missing_id = published.ids.missing_id
        self._vectors = GrowingArray(published.vectors)
        self._is_in = GrowingArray(np.ones(len(published.vectors), dtype=np.bool_))
        self._put = PutRecords(published.table.schema)
        self._added: dict[Any, int] = {}
        """The rows of ids that the version did not have, which follow those of the others."""
        self._added_ids = GrowingArray(np.empty(0, dtype=published.ids.dtype))
        """These ids, in the order of their rows."""

    @property
    def id_column(self) -> str:
        """The name of the id."""
        return self.published.id_column

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns, the id first."""
        return self.published.columns

    @property
    def size(self) -> int:
        """How many rows there are, those that were removed among them."""
        return len(self.published.ids) + len(self._added_ids)

    @property
    def n_present(self) -> int:
        """How many can be found."""
        return int(np.count_nonzero(self._is_in.values))

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """What NumPy calls an id: int64, or object for a str."""
        return self.published.ids.dtype

    @property
    def vectors(self) -> Vectors:
        """V_user or V_item by row, [size, 1 + d] float32."""
        return self._vectors.values

    @property
    def is_present(self) -> NDArray[np.bool_]:
        """Which rows can be found, [size]."""
        return self._is_in.values

    def parse_id(self, text: str) -> int | str:
        """Read an id that was typed; see `Embeddings.parse_id`."""
        return self.published.parse_id(text)

    def ids(self, rows: Rows) -> NDArray[Any]:
        """The ids of rows, int64 or str objects in the same shape; `missing_id` for row -1."""
        n_published = len(self.published.ids)
        is_added = rows >= n_published
        if not is_added.any():
            return self.published.ids.take(rows)
        ids = self.published.ids.take(np.where(is_added, -1, rows))
        ids[is_added] = self._added_ids.values[rows[is_added] - n_published]
        return ids

    def rows(self, ids: Sequence[Any]) -> Rows:
        """The row of each id; -1 for one that is not here.

        Raises:
            QueryError: an id is not of the type of the ids.
        """
        return self.find(self.published.checked_ids(ids))

    def find(self, ids: NDArray[Any]) -> Rows:
        """The row of each id [n], which are of the right type; -1 for one that is not here."""
        rows = self._ever(ids)
        return np.where((rows >= 0) & self.is_present[rows], rows, -1)

    def unknown(self, ids: Sequence[Any]) -> list[Any]:
        """Those ids, which are of the right type, that are not here and never were."""
        rows = self._ever(self.published.checked_ids(ids))
        return [id for id, row in zip(ids, rows.tolist(), strict=True) if row < 0]

    def record(self, row: int) -> Mapping[str, Any]:
        """What was put for a row; nothing for one as it was published."""
        return self._put.get(row)

    def show(self, rows: Rows, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table's columns for some rows, by default all; the id comes first.

        Raises:
            QueryError: there is no such column.
        """
        for name in columns or ():
            self._check(name)
        names = self.columns
        if columns is not None:
            names = list(dict.fromkeys([self.id_column, *columns]))
        table = self.published.table.select(names)
        fresh = self._put.has(rows)
        chosen = table.take(pa.array(rows[~fresh]))
        if fresh.any():
            put = self._put.take(rows[fresh], names)
            order = np.argsort(np.argsort(fresh, kind="stable"))
            both = pa.concat_tables([chosen, put], promote_options="permissive")
            chosen = both.take(pa.array(order))
        return pd.DataFrame({name: _to_pandas(chosen[name]) for name in names})

    def matching(self, where: Filter) -> Rows:
        """The rows that can be found and match a filter, in order.

        Raises:
            QueryError: a column does not exist, or a value is not of its type.
        """
        n_published = len(self.published.ids)
        found = np.zeros(self.size, dtype=np.bool_)
        found[:n_published] = matches(where, self._published_column, size=n_published)
        rows, fresh = self._put.matching(where)
        found[rows] = fresh
        return np.flatnonzero(found & self.is_present)

    def snapshot(self) -> Snapshot:
        """Take what there is now."""
        return Snapshot(self.published, *self._put.all(), self.is_present.copy())

    def check_filter(self, where: Filter) -> None:
        """Refuse a filter that does not fit the table.

        Raises:
            QueryError: a column does not exist, or a value is not of its type.
        """
        size = min(len(self.published.ids), SHOWN_VALUES)
        matches(where, lambda name: self._published_column(name)[:size], size=size)

    def read_record(
        self, record: Mapping[str, Any], *, inputs: Mapping[str, Input]
    ) -> Mapping[str, Any]:
        """Read a record as a row of the table, with the types of its columns.

        Args:
            record: the id, columns of the table and features.
            inputs: the features by their columns. A list may be text to cut, and a number may have
                a fraction that no number of the column has.

        Raises:
            QueryError: the id is missing, a column is unknown, or a value is not of its type.
        """
        if record.get(self.id_column) in (None, self.missing_id):
            raise QueryError(f"{self.id_column}: expected one in each record, received {record!r}")
        self.published.checked_ids([record[self.id_column]])
        unknown = sorted(set(record) - set(self.columns) - set(inputs))
        if unknown:
            raise QueryError(
                f"unknown columns {unknown}; expected some of "
                f"{sorted(set(self.columns) | set(inputs))}"
            )
        read = dict(record)
        for name in read.keys() & set(self.columns[1:]):
            kind = self._published_column(name).type
            try:
                read[name] = _read_cell(record[name], kind, input=inputs.get(name))
            except ValueError:
                raise QueryError(
                    f"column {name!r}: expected a value of type {kind}, received {record[name]!r}"
                ) from None
        return read

    def put(self, records: Sequence[Mapping[str, Any]], vectors: Vectors) -> Rows:
        """Add checked records of different ids, with their vectors, or replace those of their ids.

        Returns:
            Their rows.
        """
        ids = np.array([record[self.id_column] for record in records], dtype=self.id_dtype)
        rows = self._ever(ids)
        new = rows < 0
        rows[new] = self.size + np.arange(np.count_nonzero(new))
        self._vectors.put(rows, vectors)
        self._is_in.put(rows, True)
        self._added_ids.put(rows[new] - len(self.published.ids), ids[new])
        self._added |= zip(ids[new].tolist(), rows[new].tolist(), strict=True)
        self._put.put(rows, records)
        return rows

    def remove(self, ids: Sequence[Any]) -> Rows:
        """Remove ids, and answer the rows of those that were here.

        Raises:
            QueryError: an id is not of the type of the ids.
        """
        rows = np.unique(self.rows(ids))
        rows = rows[rows >= 0]
        self._is_in.put(rows, False)
        return rows

    def _ever(self, ids: NDArray[Any]) -> Rows:
        """The row of each id that is or ever was here; -1 for the others."""
        rows = self.published.ids.find(ids)
        if self._added and (rows < 0).any():
            for place in np.flatnonzero(rows < 0):
                rows[place] = self._added.get(ids[place], -1)
        return rows

    def _check(self, name: str) -> None:
        if name not in self.columns:
            raise QueryError(
                f"column: expected some of {self.columns}, received {name!r}, which the table of "
                f"{self.id_column} does not have"
            )

    def _published_column(self, name: str) -> pa.Array:
        self._check(name)
        return self.published.column(name)


def _read_cell(value: Any, kind: pa.DataType, *, input: Input | None) -> Any:
    """Read a value of a column, which may be a feature.

    Raises:
        ValueError: it is none.
    """
    if input is not None and input.rank > 1:
        lists = cut_lists([value], input.separator)
        value = value if lists.faulty.any() else list(lists.values)
    try:
        return read_cell(value, kind)
    except ValueError:
        if input is None or input.rank > 1 or input.dtype is not np.float32:
            raise
        number = number_of(value) if input.form is None else input.form.read(value)
        if number is None:
            raise
        return number


def _to_pandas(column: pa.ChunkedArray) -> pd.Series[Any]:
    """A column with integers that stay integers beside missing values."""
    kind = column.type
    if is_list(kind) and pa.types.is_integer(kind.value_type):
        return pd.Series(column.to_pylist(), dtype=object)
    is_nullable = pa.types.is_integer(kind) and column.null_count
    values: pd.Series[Any] = column.to_pandas(types_mapper=_NULLABLE.get if is_nullable else None)
    return values


_NULLABLE = {
    pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name)
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
}
