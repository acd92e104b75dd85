"""A table of interactions in Parquet, read in chunks that know where each row was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.config import InteractionsTable
from pipelines.data.columns import are_dates
from pipelines.data.ids import IdColumn
from pipelines.data.parquet_files import SourceFiles
from pipelines.data.positives import table_columns
from pipelines.data.tables import PARQUET_SUFFIXES, Shard, SourceTable, shard_paths
from towers.errors import ConfigError

SAMPLE = 1000
"""Rows that are read first to find a value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedTable:
    """A table of interactions; the position of a row is its number over all shards, from 0."""

    files: SourceFiles
    table: InteractionsTable
    """What its columns mean."""
    chunk_rows: int
    """How many rows are read at a time."""

    @property
    def name(self) -> str:
        """What to call it: interactions or test."""
        return self.files.name

    @property
    def n_rows(self) -> int:
        """The rows of all shards."""
        return self.files.n_rows

    @property
    def n_chunks(self) -> int:
        """How many chunks its rows make; one if there are none."""
        return max(-(-self.n_rows // self.chunk_rows), 1)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(table_columns(self.table)))

    def start(self, number: int) -> int:
        """The position of the first row of a chunk."""
        return number * self.chunk_rows

    def chunk(self, number: int, *, columns: Sequence[str] | None = None) -> SourceTable:
        """Read some columns, by default all that have a meaning, of a chunk."""
        start = self.start(number)
        stop = min(start + self.chunk_rows, self.n_rows)
        return self.read(start, stop, columns=self.columns if columns is None else columns)

    def read(self, start: int, stop: int, *, columns: Sequence[str]) -> SourceTable:
        """Read some columns of rows from a position on, up to another."""
        shards = self._shards(np.arange(start, stop))
        return self._wrap(self._arrow(start, stop, columns), shards=shards)

    def rows_at(self, positions: NDArray[np.int64]) -> Iterator[SourceTable]:
        """Read whole rows at ascending positions, those of a chunk at a time."""
        chunks = positions // self.chunk_rows
        for number in np.unique(chunks).tolist():
            chosen = positions[chunks == number]
            first, last = int(chosen[0]), int(chosen[-1])
            rows = self._arrow(first, last + 1, self.files.schema.names).take(chosen - first)
            yield self._wrap(rows, shards=self._shards(chosen))

    def empty(self) -> SourceTable:
        """The table without its rows."""
        return self.read(0, 0, columns=self.files.schema.names)

    def first_ids(self, column: str) -> IdColumn:
        """Read ids until there is one; all of them are of the same type."""
        stops = [min(SAMPLE, self.n_rows), *range(self.chunk_rows, self.n_rows, self.chunk_rows)]
        stops = sorted({*stops, self.n_rows})
        for start, stop in zip([0, *stops], stops, strict=False):
            ids = IdColumn(source=self.read(start, stop, columns=[column]), column=column)
            if len(ids.present):
                break
        return ids

    def has_dates(self) -> bool:
        """Whether its times are dates; reads them where their type does not say so."""
        name = self.table.timestamp
        if name is None:
            return False
        chunks = (self.chunk(number, columns=[name]) for number in range(self.n_chunks))
        return are_dates(chunk.frame[name] for chunk in chunks)

    def _arrow(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Read rows with the types that the columns have over all shards."""
        [rows] = self.files.batches(start, columns=columns, sizes=[stop - start])
        return rows

    def _wrap(self, rows: pa.Table, *, shards: tuple[Shard, ...]) -> SourceTable:
        frame: pd.DataFrame = rows.to_pandas(ignore_metadata=True, integer_object_nulls=True)
        return SourceTable(name=self.name, frame=frame, typed=True, shards=shards)

    def _shards(self, positions: NDArray[np.int64]) -> tuple[Shard, ...]:
        """The row numbers, from 1, in every shard of rows at ascending positions."""
        ends = list(accumulate(self.files.counts))
        cuts = np.searchsorted(positions, [0, *ends])
        return tuple(
            Shard(file=str(path), rows=positions[first:last] - (end - count) + 1)
            for path, count, end, first, last in zip(
                self.files.paths, self.files.counts, ends, cuts[:-1], cuts[1:], strict=True
            )
        )


def open_streamed(table: InteractionsTable, *, name: str, chunk_rows: int) -> StreamedTable:
    """Look at the files of a table of interactions, without reading their rows.

    Raises:
        ConfigError: it is not Parquet.
        DataError: there is nothing to read, or the shards do not fit together.
    """
    if not table.path:
        raise ConfigError(f"{name}: expected the path of a table, received none; give its path")
    path = Path(table.path)
    if shard_paths(path, name=name)[0].suffix.lower() not in PARQUET_SUFFIXES:
        raise ConfigError(
            f"{name}: expected Parquet, a file or a folder of shards, to read it from disk, "
            f"received {path}; convert it to Parquet, or use --engine memory"
        )
    files = SourceFiles.open(path, name=name)
    return StreamedTable(files=files, table=table, chunk_rows=chunk_rows)
