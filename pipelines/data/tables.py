"""Read a table from CSV or Parquet, a file or a folder of shards, knowing where each row was.

CSV is read as text, so that a value that cannot be parsed later is shown as it stands in the
file. Parquet keeps its types. No value is changed, and no row is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.config import FileFormat
from pipelines.data.csv_file import MalformedLine, read_csv
from towers.errors import ConfigError, DataError

PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """One file of a table, and the number in it of each row that it gave to the frame."""

    file: str
    rows: range | NDArray[np.int64]
    """CSV: line numbers, counted from 1 with the header; Parquet: row numbers from 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceTable:
    """The rows of a table as they were given, in order of shards and rows."""

    name: str
    """What to call it: interactions, users, items or test."""
    frame: pd.DataFrame
    """With row positions 0, 1, ... as its index."""
    typed: bool
    """Whether columns have types of their own; those of a CSV file do not."""
    shards: tuple[Shard, ...]
    malformed: tuple[MalformedLine, ...] = ()
    empty_lines: int = 0
    """CSV lines without a single value, which are no rows."""

    @property
    def where(self) -> str:
        """The table's name, with the file that it comes from."""
        more = f" and {len(self.shards) - 1} more" if len(self.shards) > 1 else ""
        return f"{self.name} ({self.shards[0].file}{more})"

    def locate(self, positions: NDArray[np.int64]) -> list[tuple[str, int]]:
        """Say the file and the row number in it of each position in the frame."""
        starts = np.cumsum([0] + [len(shard.rows) for shard in self.shards])
        owners = np.searchsorted(starts, positions, side="right") - 1
        return [
            (self.shards[owner].file, int(self.shards[owner].rows[position - starts[owner]]))
            for owner, position in zip(owners.tolist(), positions.tolist(), strict=True)
        ]

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks any of `columns`.

        Raises:
            ConfigError: with the missing columns and those present.
        """
        missing = [column for column in dict.fromkeys(columns) if column not in self.frame.columns]
        if missing:
            raise ConfigError(
                f"{self.where}: expected column(s) {missing}, which it lacks; it has "
                f"{[str(column) for column in self.frame.columns]}. Name its columns in the "
                "configuration, and check the separator and the header line"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """What one file gave."""

    table: pa.Table
    shard: Shard
    malformed: tuple[MalformedLine, ...] = ()
    empty_lines: int = 0


def read_table(source: FileFormat, *, name: str) -> SourceTable:
    """Read a table from the file or the folder that `source` names.

    A folder's shards are its `*.parquet` or its `*.csv` files, in order of their names.

    Raises:
        ConfigError: no path is given, or the encoding is unknown.
        DataError: there is nothing to read, it cannot be read, or shards do not fit together.
    """
    if not source.path:
        raise ConfigError(f"{name}: expected the path of a table, received none; give its path")
    paths = shard_paths(Path(source.path), name=name)
    is_parquet = paths[0].suffix.lower() in PARQUET_SUFFIXES
    read: Callable[[Path, FileFormat], _Part] = _read_parquet if is_parquet else _read_csv
    parts = [_guarded(read, path, source) for path in paths]
    for part in parts:
        check_unique(part.table.column_names, where=f"{name} ({part.shard.file})")
    return SourceTable(
        name=name,
        frame=_concatenate(parts, name=name).to_pandas(
            ignore_metadata=True, integer_object_nulls=True
        ),
        typed=is_parquet,
        shards=tuple(part.shard for part in parts),
        malformed=tuple(line for part in parts for line in part.malformed),
        empty_lines=sum(part.empty_lines for part in parts),
    )


def wrap_frame(frame: pd.DataFrame, *, name: str) -> SourceTable:
    """Take a DataFrame as a table; its row numbers are positions, as `iloc` counts them.

    Raises:
        DataError: a column occurs twice.
    """
    check_unique(list(frame.columns), where=f"{name} DataFrame")
    shard = Shard(file=f"{name}.iloc", rows=range(len(frame)))
    return SourceTable(name=name, frame=frame.reset_index(drop=True), typed=True, shards=(shard,))


def check_unique(columns: Sequence[object], *, where: str) -> None:
    """Refuse a table that names a column twice."""
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: expected each column once, received {repeated} more than once; rename them"
        )


def shard_paths(path: Path, *, name: str) -> list[Path]:
    """List the files of a table."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{name}: no such file or folder: {path}; check the path")
    found = [p for p in sorted(path.iterdir()) if p.is_file() and p.name[0] not in "._"]
    parquet = [p for p in found if p.suffix.lower() in PARQUET_SUFFIXES]
    csv = [p for p in found if p.suffix.lower() == ".csv"]
    if bool(parquet) == bool(csv):
        received = "both kinds" if parquet else "neither"
        raise DataError(
            f"{name}: expected *.parquet or *.csv shards in the folder {path}, received "
            f"{received}; name one file, or a folder with shards of one kind"
        )
    return parquet or csv


def _guarded(read: Callable[[Path, FileFormat], _Part], path: Path, source: FileFormat) -> _Part:
    """Read one file, with an error that names it."""
    try:
        return read(path, source)
    except OSError as error:
        problem, remedy = str(error), "check that it is whole and that you may read it"
    except UnicodeError as error:
        problem, remedy = str(error), "set the table's encoding, for example 'latin-1'"
    except pa.ArrowException as error:
        problem = str(error)
        remedy = "check that it is whole, and its separator, encoding and quotation marks"
    raise DataError(f"{path}: cannot be read: {problem}; {remedy}")


def _read_parquet(path: Path, source: FileFormat) -> _Part:
    """Read one Parquet file whole; neither its folder's name nor pandas' index adds a column."""
    del source  # a Parquet file describes itself
    with pq.ParquetFile(path) as file:
        table = file.read()
    return _Part(table=table, shard=Shard(file=str(path), rows=range(1, table.num_rows + 1)))


def _read_csv(path: Path, source: FileFormat) -> _Part:
    """Read one CSV file."""
    file = read_csv(path, source)
    return _Part(
        table=file.table,
        shard=Shard(file=str(path), rows=file.rows),
        malformed=file.malformed,
        empty_lines=file.empty_lines,
    )


def _concatenate(parts: Sequence[_Part], *, name: str) -> pa.Table:
    """Join the shards of a table, which must have the same columns, in any order."""
    first = parts[0]
    columns = first.table.column_names
    for part in parts[1:]:
        if sorted(part.table.column_names) != sorted(columns):
            raise DataError(
                f"{name}: expected the same columns in every shard, but {first.shard.file} has "
                f"{columns} and {part.shard.file} has {part.table.column_names}; mend the shard"
            )
    tables = [parts[0].table] + [part.table.select(columns) for part in parts[1:]]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: the columns of the shards of {Path(first.shard.file).parent} differ in type: "
            f"{error}; write all shards with the same types"
        ) from None
