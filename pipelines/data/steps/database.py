"""DuckDB, which sorts, groups and joins rows within a bound of memory."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pandas as pd

from pipelines.data.steps.files import write_rows

MEMORY = "1GiB"
"""How much memory DuckDB may use; it writes what needs more to disk."""

MOST_THREADS = 4
"""More threads would need more memory than that, since each has buffers of its own."""

SLICES = 4096
"""The number of equal slices into which the time of all rows is cut to find one row."""

Place = tuple[float, int]
"""The time and the position of a row; interactions are sorted by this pair."""

NOWHERE: Place = (float("inf"), 0)
"""A place after the last row."""


@contextmanager
def connect(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a database until the block ends; it writes to `folder` what memory does not hold.

    Temporary tables are the connection's own.
    """
    with _database(folder).cursor() as connection:
        yield connection


def forget_databases() -> None:
    """Close the database that `connect` keeps open for the next connection to the same folder."""
    _database.cache_clear()


@lru_cache(maxsize=1)
def _database(folder: Path) -> duckdb.DuckDBPyConnection:
    """Start DuckDB; it is kept, because a start takes longer than the queries on a small table."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder / f"duckdb-{uuid4().hex}"),  # another process has its own
        "preserve_insertion_order": "false",
        "threads": min(os.cpu_count() or 1, MOST_THREADS),
    }
    return duckdb.connect(config=config)


def find_places(settled: Sequence[Path], *, ranks: Sequence[int], scratch: Path) -> list[Place]:
    """Find the positive at each rank, counted from 0, in order of time.

    The place of a rank that does not exist is `NOWHERE`. Time is cut into slices of one length, and
    only the rows of one slice are sorted.
    """
    rows = "(SELECT timestamp, position FROM read_parquet(?) WHERE NOT is_test AND is_positive)"
    names = list(map(str, settled))
    with connect(scratch) as database:

        def ask(query: str) -> list[tuple[Any, ...]]:
            return database.execute(query, [names]).fetchall()

        slice_of = _slice_of(*ask(f"SELECT min(timestamp), max(timestamp) FROM {rows}"))
        slices = ask(f"SELECT {slice_of} AS slice, count(*) FROM {rows} GROUP BY 1 ORDER BY 1")
        ends = list(accumulate(count for _, count in slices))
        places = []
        for rank in ranks:
            at = bisect_right(ends, rank)
            if at == len(ends):
                places.append(NOWHERE)
                continue
            number, count = slices[at]
            [(time, position)] = ask(
                f"SELECT timestamp, position FROM {rows} WHERE {slice_of} = {number:d} "
                f"ORDER BY timestamp, position LIMIT 1 OFFSET {rank - (ends[at] - count):d}"
            )
            places.append((float(time), int(position)))
    return places


def first_seen(checked: Sequence[Sequence[Path]], *, column: str, scratch: Path) -> pd.Series:
    """List the distinct values of a column of several tables, in order of first occurrence."""
    parts = " UNION ALL ".join(
        f"SELECT {column} AS id, {number} AS number, min(position) AS position "
        "FROM read_parquet(?) GROUP BY 1"
        for number in range(len(checked))
    )
    query = f"SELECT id FROM ({parts}) GROUP BY id ORDER BY min(number), arg_min(position, number)"
    with connect(scratch) as connection:
        names = [list(map(str, paths)) for paths in checked]
        ids: pd.Series = connection.sql(query, params=names).to_arrow_table()["id"].to_pandas()
    return ids


def write_moments(
    checked: Sequence[Path], path: Path, *, columns: Sequence[str], scratch: Path
) -> pd.DataFrame:
    """Number the distinct contexts of checked rows from 0, and write them where steps find them.

    Their order is that of their values, so that it depends on nothing else.
    """
    names = ", ".join(columns)
    query = (
        f"SELECT (row_number() OVER (ORDER BY {names}) - 1)::INTEGER AS moment, {names} "
        f"FROM (SELECT DISTINCT {names} FROM read_parquet($checked)) ORDER BY moment"
    )
    with connect(scratch) as database:
        found = database.sql(query, params={"checked": list(map(str, checked))}).to_arrow_table()
    write_rows(path, found)
    moments: pd.DataFrame = found.to_pandas()
    return moments.drop(columns="moment")


def _slice_of(extremes: tuple[float | None, float | None]) -> str:
    """Write the SQL expression for the number of a timestamp's slice; it grows with time."""
    least, greatest = (value or 0.0 for value in extremes)
    half = greatest / 2 - least / 2  # the whole length may be more than a float can hold
    if half == 0.0:
        return "0"
    return f"floor((timestamp / 2 - {least / 2!r}) / {half!r} * {SLICES})::BIGINT"
