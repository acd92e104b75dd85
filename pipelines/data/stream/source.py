"""A table of interactions in Parquet, read in chunks that know where each row was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.config import InteractionsTable
from pipelines.data.columns import are_dates
from pipelines.data.ids import IdColumn
from pipelines.data.positives import table_columns
from pipelines.data.sources.open import open_source
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.data.sources.parquet_source import ParquetSource
from pipelines.data.sources.source import Rows
from pipelines.data.tables import SourceTable
from towers.errors import ConfigError

SAMPLE = 1000
"""Rows that are read first to find a value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedTable:
    """A table of interactions; the position of a row is its number over all shards, from 0."""

    source: ParquetSource
    table: InteractionsTable
    """What its columns mean."""
    chunk_rows: int
    """How many rows are read at a time."""

    @property
    def files(self) -> SourceFiles:
        """Its files."""
        return self.source.files

    @property
    def name(self) -> str:
        """What to call it: interactions or test."""
        return self.source.name

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
        return self._wrap(self.source.read(start, stop, columns=columns))

    def rows_at(self, positions: NDArray[np.int64]) -> Iterator[SourceTable]:
        """Read whole rows at ascending positions, those of a chunk at a time."""
        chunks = positions // self.chunk_rows
        for number in np.unique(chunks).tolist():
            yield from map(self._wrap, self.source.rows_at(positions[chunks == number]))

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

    def _wrap(self, rows: Rows) -> SourceTable:
        return SourceTable(**vars(rows), source=self.source)


def open_streamed(table: InteractionsTable, *, name: str, chunk_rows: int) -> StreamedTable:
    """Look at the files of a table of interactions, without reading their rows.

    Raises:
        ConfigError: it is not Parquet.
        DataError: there is nothing to read, or the shards do not fit together.
    """
    source = open_source(table, name=name)
    if not isinstance(source, ParquetSource):
        raise ConfigError(
            f"{name}: expected Parquet, a file or a folder of shards, to read it from disk, "
            f"received {table.path}; convert it to Parquet, or use --engine memory"
        )
    return StreamedTable(source=source, table=table, chunk_rows=chunk_rows)
