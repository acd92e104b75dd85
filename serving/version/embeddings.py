"""Embeddings: the vectors of all users or all items, with their ids and columns to show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.search.index import Rows, Vectors
from serving.version.ids import IdTable
from towers.errors import BundleError, QueryError
from towers.features.values import INT64

VECTOR = "vector"
"""The column of the vectors in Parquet."""

COLUMNS = "columns"
"""The column of records in Parquet: the table's own columns, the id first, whatever their names."""

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
"""An integer of at most 19 digits, as JSON writes it."""

LARGEST_NARROW = 2**31 - 1
"""Bytes of the texts of an Arrow array whose offsets are narrow at most."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One side of a version, by row."""

    table: pa.Table
    """One row a user or item: the id (int64, or text) first, then columns to show."""
    vectors: Vectors
    """V_user or V_item, [n, 1 + d] float32."""

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame, vectors: Vectors) -> Embeddings:
        """Take the table from pandas; NaN becomes null."""
        return cls(pa.Table.from_pandas(frame, preserve_index=False), vectors)

    @classmethod
    def read(cls, path: Path) -> Embeddings:
        """Read what `write` wrote, with no more in memory at once than it keeps.

        Raises:
            BundleError: the file is not such a table.
        """
        with _opened(path) as file:
            vectors = _read_vectors(file)
            table = pa.table({name: _read_column(file, name) for name in _column_names(file)})
            metadata = file.schema_arrow.metadata
        return cls(table.replace_schema_metadata(metadata), vectors)

    def write(self, path: Path) -> None:
        """Write Parquet: `columns`, records of the table, and `vector`, lists of float32."""
        lists = pa.FixedSizeListArray.from_arrays(
            pa.array(self.vectors.ravel(), pa.float32()), self.vectors.shape[1]
        )
        table = pa.table({COLUMNS: self.table.to_struct_array(), VECTOR: lists})
        pq.write_table(table.replace_schema_metadata(self.table.schema.metadata), path)

    @property
    def id_column(self) -> str:
        """The name of the id."""
        return self.columns[0]

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns, the id first."""
        names: list[str] = self.table.column_names
        return names

    @cached_property
    def ids(self) -> IdTable:
        """The ids by row."""
        return IdTable(self.column(self.id_column))

    def parse_id(self, text: str) -> int | str:
        """Read an id that was typed: where the ids are integers, as JSON writes one: 10, not 1_0.

        Raises:
            QueryError: it is none.
        """
        if self.ids.dtype != np.int64:
            return text
        if not INTEGER.fullmatch(text):
            raise QueryError(
                f"{self.id_column}: expected an integer, as in training, received {text!r}"
            )
        return int(text)

    def checked_ids(self, ids: Sequence[Any]) -> NDArray[Any]:
        """Bring ids to an array of the type of `ids`.

        Raises:
            QueryError: one is of another type.
        """
        integer = self.ids.dtype == np.int64
        kinds = (int, np.integer) if integer else (str,)
        for given in ids:
            fits = isinstance(given, kinds) and not isinstance(given, bool)
            if not fits or (integer and not INT64.min <= given <= INT64.max):
                raise QueryError(
                    f"{self.id_column}: expected {'a 64-bit integer' if integer else 'text'}, as "
                    f"in training, received {given!r}"
                )
        return np.array(ids, dtype=self.ids.dtype)

    def rows(self, ids: Sequence[Any]) -> Rows:
        """The row of each id; -1 for one that is not here.

        Raises:
            QueryError: an id is not of the type of the ids.
        """
        return self.ids.find(self.checked_ids(ids))

    def column(self, name: str) -> pa.Array:
        """One of the table's columns."""
        return _one_array(self.table[name])


def read_ids(path: Path) -> IdTable:
    """Read nothing but the ids of what `Embeddings.write` wrote.

    Raises:
        BundleError: the file is not such a table.
    """
    with _opened(path) as file:
        return IdTable(_read_column(file, _column_names(file)[0]))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a file of embeddings; what is wrong with it is a BundleError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, ValueError, pa.ArrowException, AttributeError) as error:
        raise BundleError(
            f"{path}: expected a Parquet file with a column {VECTOR!r} of lists of float32, "
            f"received {error}; publish again, or roll back to another version"
        ) from None


def _has_records(file: pq.ParquetFile) -> bool:
    """Whether the table's columns are nested, as they are since format 2 of a bundle."""
    schema = file.schema_arrow
    return schema.names == [COLUMNS, VECTOR] and bool(
        pa.types.is_struct(schema.field(COLUMNS).type)
    )


def _column_names(file: pq.ParquetFile) -> list[str]:
    """The names of the table's columns, the id first."""
    schema = file.schema_arrow
    if _has_records(file):
        return [field.name for field in schema.field(COLUMNS).type]
    return [name for name in schema.names if name != VECTOR]


def _read_column(file: pq.ParquetFile, name: str) -> pa.Array:
    if not _has_records(file):
        return _one_array(file.read([name])[name])
    # A name with a dot reads others too that start with its first part.
    records = file.read([f"{COLUMNS}.{name}"])[COLUMNS]
    return _one_array(pc.struct_field(records, [records.type.get_field_index(name)]))


def _read_vectors(file: pq.ParquetFile) -> Vectors:
    """Read the column of vectors, a part at a time.

    Raises:
        KeyError: there is none.
        AttributeError: it is of no lists of a fixed size.
        ValueError: a list is missing.
    """
    width = file.schema_arrow.field(VECTOR).type.list_size
    vectors = np.empty((file.metadata.num_rows, width), dtype=np.float32)
    start = 0
    for batch in file.iter_batches(columns=[VECTOR]):
        part = batch.column(0).flatten().to_numpy()
        vectors[start : start + len(batch)] = part.reshape(len(batch), width)
        start += len(batch)
    return vectors


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece; one that is so already is not copied."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.nbytes > LARGEST_NARROW:
        column = column.cast(_wide(column.type))
    return column.combine_chunks()


def _wide(kind: pa.DataType) -> pa.DataType:
    """The type that also holds texts and lists beyond the reach of narrow offsets."""
    if pa.types.is_string(kind):
        return pa.large_string()
    return pa.large_list(_wide(kind.value_type)) if pa.types.is_list(kind) else kind
