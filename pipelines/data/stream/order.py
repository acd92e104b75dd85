"""Questions of order over all rows, for DuckDB, which sorts and groups on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

SLICES = 100_000
"""Into so many parts the whole of time is cut to find a row."""

MOST_THREADS = 4
"""Each needs memory of its own."""

Place = tuple[float, int]
"""A time, and the position of a row; what interactions are in order of."""


@dataclass(frozen=True, kw_only=True)
class Sorter:
    """Answers questions of order within a bound of memory."""

    scratch: Path
    """A folder for what does not fit."""
    memory: str = "1GiB"

    def place(self, settled: Sequence[Path], *, rank: int) -> Place | None:
        """The place of the row that has `rank` rows before it; none if there is no such row.

        Time is cut into slices of one length, and the rows of one slice are sorted.
        """
        names = _names(settled)
        with self._connect() as connection:

            def ask(query: str) -> list[tuple[Any, ...]]:
                return connection.execute(query, [names]).fetchall()

            slice_of = _slice_of(*ask("SELECT min(timestamp), max(timestamp) FROM read_parquet(?)"))
            before = 0
            for number, count in ask(
                f"SELECT {slice_of} AS slice, count(*) FROM read_parquet(?) GROUP BY 1 ORDER BY 1"
            ):
                if rank < before + count:
                    [place] = ask(
                        "SELECT timestamp, position FROM read_parquet(?) "
                        f"WHERE {slice_of} = {number:d} ORDER BY timestamp, position "
                        f"LIMIT 1 OFFSET {rank - before:d}"
                    )
                    return float(place[0]), int(place[1])
                before += count
        return None

    def first_seen(self, checked: Sequence[Sequence[Path]], *, column: str) -> pd.Series:
        """The values of a column of some tables, each once, in order of first occurrence."""
        tables = [names for names in map(_names, checked) if names]
        parts = " UNION ALL ".join(
            f"SELECT {column} AS id, {number} AS number, min(position) AS position "
            "FROM read_parquet(?) GROUP BY 1"
            for number in range(len(tables))
        )
        query = (
            f"SELECT id FROM ({parts}) GROUP BY id ORDER BY min(number), arg_min(position, number)"
        )
        with self._connect() as connection:
            found = connection.sql(query, params=tables).to_arrow_table()
        ids: pd.Series = found["id"].to_pandas()
        return ids

    def _connect(self) -> duckdb.DuckDBPyConnection:
        self.scratch.mkdir(exist_ok=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory,
            "temp_directory": str(self.scratch),
            "preserve_insertion_order": "false",
            "threads": min(os.cpu_count() or 1, MOST_THREADS),
        }
        return duckdb.connect(config=config)


def _slice_of(extremes: tuple[float | None, float | None]) -> str:
    """An expression for the number of the slice that a timestamp is in; it never decreases."""
    least, greatest = (value or 0.0 for value in extremes)
    half = greatest / 2 - least / 2  # the whole length may be more than a float can hold
    if half == 0.0:
        return "0"
    return f"floor((timestamp / 2 - {least / 2!r}) / {half!r} * {SLICES})::BIGINT"


def _names(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]
