"""Source: a table that is read in chunks, and says where each of its rows stands."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.columns.parsed import are_among
from towers.errors import ConfigError, DataError

ROWS_AT_A_TIME = 65_536
"""Of rows that are far apart, those within so many positions are read together."""

SHOWN_FILES = 5


@dataclass(frozen=True, kw_only=True)
class MalformedLine:
    """A CSV line that is no row of its table."""

    file: str
    row: int
    text: str
    reason: str = "wrong number of fields"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """One file of a table, and the number in it of each row that it gave."""

    file: str
    rows: range | NDArray[np.int64]
    """CSV: line numbers, counted from 1 with the header; Parquet: row numbers from 1; a frame:
    positions, as `iloc` counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Some rows of a table, in order of files and rows."""

    name: str
    """What the table is called: interactions, users, items or test."""
    where: str
    """The table's name, with the file that it comes from; for messages."""
    frame: pd.DataFrame
    """The values as they were given, with row positions 0, 1, ... as its index."""
    typed: bool
    """Whether columns have types of their own; those of a CSV file do not."""
    shards: tuple[Shard, ...]
    """Where the rows stand, one entry for each file, in order."""
    null_values: frozenset[str] = frozenset()
    """Texts that mean that a value is missing."""

    def column(self, name: str) -> pd.Series:
        """Give a column to parse: texts that mean a missing value are None."""
        values = self.frame[name]
        if not self.null_values or values.dtype != np.dtype(object):
            return values
        means_null = are_among(values, self.null_values)
        return values.mask(means_null, None) if means_null.any() else values

    def locate(self, positions: NDArray[np.int64]) -> list[tuple[str, int]]:
        """Say the file and the row number in it of each position in the frame."""
        starts = np.cumsum([0] + [len(shard.rows) for shard in self.shards])
        owners = np.searchsorted(starts, positions, side="right") - 1
        return [
            (self.shards[owner].file, int(self.shards[owner].rows[position - starts[owner]]))
            for owner, position in zip(owners.tolist(), positions.tolist(), strict=True)
        ]

    def take(self, positions: NDArray[np.int64]) -> Rows:
        """Keep the rows at ascending positions."""
        starts = np.cumsum([0] + [len(shard.rows) for shard in self.shards])
        cuts = np.searchsorted(positions, starts)
        shards = [
            Shard(file=shard.file, rows=np.asarray(shard.rows)[positions[first:last] - start])
            for shard, start, first, last in zip(
                self.shards, starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
        ]
        return Rows(
            name=self.name,
            where=self.where,
            frame=self.frame.iloc[positions].reset_index(drop=True),
            typed=self.typed,
            shards=tuple(shards),
            null_values=self.null_values,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(ABC):
    """A table as it was given. The position of a row is its number over all files, from 0.

    It holds what it needs by value, or as paths, so that it can be sent to another process.
    """

    name: str
    """What to call it: interactions, users, items or test."""
    where: str
    """The name with the file that it comes from; for messages."""
    typed: bool
    """Whether columns have types of their own; those of a CSV file do not."""
    columns: tuple[str, ...]
    n_rows: int
    malformed: tuple[MalformedLine, ...] = ()
    """CSV lines that are no rows, and are rejected."""
    empty_lines: int = 0
    """CSV lines without a single value, which are no rows."""
    notes: tuple[str, ...] = ()
    """What the report is to say about how it was read."""
    null_values: frozenset[str] = frozenset()
    """Texts that mean that a value is missing."""

    @abstractmethod
    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Read some columns, by default all, of the rows from a position up to another.

        Raises:
            DataError: a file cannot be read, or the columns of the files differ in type.
        """

    def rows_at(
        self, positions: NDArray[np.int64], *, columns: Sequence[str] | None = None
    ) -> Iterator[Rows]:
        """Read rows at ascending positions, a stretch of the table at a time."""
        stretches = positions // ROWS_AT_A_TIME
        for stretch in np.unique(stretches).tolist():
            chosen = positions[stretches == stretch]
            first = int(chosen[0])
            yield self.read(first, int(chosen[-1]) + 1, columns=columns).take(chosen - first)

    def chunks(self, size: int, *, columns: Sequence[str] | None = None) -> Iterator[Rows]:
        """Read the whole table in order, `size` rows at a time; one chunk if there are none."""
        for start in range(0, max(self.n_rows, 1), size):
            yield self.read(start, min(start + size, self.n_rows), columns=columns)

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks any of `columns`.

        Raises:
            ConfigError: with the missing columns and those present.
        """
        missing = [column for column in dict.fromkeys(columns) if column not in self.columns]
        if missing:
            raise ConfigError(
                f"{self.where}: expected column(s) {missing}, which it lacks; it has "
                f"{list(self.columns)}. Name its columns in the configuration, and check the "
                "separator and the header line"
            )


def describe(name: str, files: Sequence[str]) -> str:
    """Name a table with its first file, and say how many more there are."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{name} ({files[0]}{more})"


def note_files(paths: Sequence[Path], counts: Sequence[int]) -> tuple[str, ...]:
    """Say how many rows each of several files has."""
    if len(paths) == 1:
        return ()
    folder = os.path.commonpath(path.parent for path in paths)
    names = [path.relative_to(folder) for path in paths]
    shown = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
    more = f", and {len(shown) - SHOWN_FILES} more" if len(shown) > SHOWN_FILES else ""
    return (f"rows of {len(paths):,} files: {', '.join(shown[:SHOWN_FILES])}{more}",)


def check_unique(columns: Sequence[object], *, where: str) -> None:
    """Refuse a table that names a column twice.

    Raises:
        DataError: with the names that are repeated.
    """
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(
            f"{where}: expected each column once, received {repeated} more than once; rename them"
        )
