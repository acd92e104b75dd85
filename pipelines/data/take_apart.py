"""Take apart a table that has the values of users or items in each row of the interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.columns.parsed import is_missing
from pipelines.data.sources.arrow import to_arrow, to_frame
from pipelines.data.sources.source import Rows, Shard, Source
from pipelines.data.steps.chunks import Chunks
from pipelines.data.steps.database import connect
from pipelines.table_config import EntityTable
from towers.errors import ConfigError
from towers.features.schema import Side

ROWS = "read_parquet($files)"

LATEST = """
SELECT id, arg_max({column}, (coalesce(time, '-inf'::DOUBLE), position)) AS value,
    count(DISTINCT {column}) AS n_values
FROM {rows} WHERE {column} IS NOT NULL AND id IS NOT NULL GROUP BY id
"""

FREQUENT = """
SELECT id, arg_max({column}, (n, latest)) AS value, count(*) AS n_values FROM (
    SELECT id, {column}, count(*) AS n,
        max((coalesce(time, '-inf'::DOUBLE), position)) AS latest
    FROM {rows} WHERE {column} IS NOT NULL AND id IS NOT NULL GROUP BY id, {column}
) GROUP BY id
"""

QUERIES = {"latest": LATEST, "frequent": FREQUENT}
WORDS = {"latest": "latest", "frequent": "most frequent"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TakenSource(Source):
    """One row an id, with its values from the interactions; their numbers count from 1."""

    frame: pd.DataFrame
    file: str
    """What to call it where a row is named."""

    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Give some columns of the rows from a position up to another; see `Source.read`."""
        frame = self.frame if columns is None else self.frame[list(dict.fromkeys(columns))]
        return Rows(
            name=self.name,
            where=self.where,
            frame=frame.iloc[start:stop].reset_index(drop=True),
            typed=self.typed,
            shards=(Shard(file=self.file, rows=range(start + 1, stop + 1)),),
        )


def take_apart(
    chunks: Chunks, table: EntityTable, *, side: Side, columns: Sequence[str], work: Path
) -> TakenSource:
    """Take the values of users or items from the rows of the interactions.

    Each column is taken by itself: of the values of an id that are given, the latest, or the most
    frequent and of these the latest. Rows without an id are passed over. DuckDB does it, so that
    memory grows with the ids and not with the interactions.

    Args:
        chunks: the interactions.
        table: which values are taken; `id` is the column of ids there.
        side: whose values they are.
        columns: those to take.
        work: the folder that the rows are written to, until they are counted.

    Raises:
        ConfigError: a column is missing, or `latest` is asked for where there are no times.
        DataError: a column has values of several types.
    """
    source = chunks.source
    id_column = chunks.table.user if side == "user" else chunks.table.item
    if table.id != id_column:
        raise ConfigError(
            f"data.{side}s.id: expected {id_column!r}, the column of {side}s in the interactions "
            f"that they are taken from, received {table.id!r}"
        )
    names = [name for name in dict.fromkeys(columns) if name != id_column]
    source.require([id_column, *names])
    take = table.take or ("latest" if chunks.times is not None else "frequent")
    if take == "latest" and chunks.times is None:
        raise ConfigError(
            f"data.{side}s.take: expected times for `latest`, received interactions without; name "
            'their column in data.interactions.timestamp, or set take = "frequent"'
        )
    with TemporaryDirectory(dir=work) as folder, connect(work) as database:
        files = _write(chunks, Path(folder), id_column=id_column, names=names)
        ids, taken = _take(database, files, names=names, query=QUERIES[take])
    notes = [f"taken from the rows of the interactions: of several values the {WORDS[take]}"]
    notes += [
        f"{name}: {n_several:,} of {n_given:,} {side}s have several values"
        for name, (_, n_given, n_several) in taken.items()
        if n_several
    ]
    frame = {id_column: ids} | {name: values for name, (values, _, _) in taken.items()}
    return TakenSource(
        name=f"{side}s",
        where=f"{side}s (of {source.where})",
        typed=source.typed,
        columns=tuple(frame),
        n_rows=len(ids),
        notes=tuple(notes),
        frame=pd.DataFrame(frame),
        file=f"{side}s of the interactions",
    )


def _take(
    database: duckdb.DuckDBPyConnection, files: Sequence[str], *, names: Sequence[str], query: str
) -> tuple[pd.Series, dict[str, tuple[pd.Series, int, int]]]:
    """Take ids in order of first occurrence, and by column their values.

    With these, how many ids have a value, and how many several different ones.
    """
    first = "SELECT id FROM {rows} WHERE id IS NOT NULL GROUP BY id ORDER BY min(position)"
    ids = _ask(database, first.format(rows=ROWS), files)["id"]
    taken = {}
    for place, name in enumerate(names):
        found = _ask(database, query.format(column=f"column_{place}", rows=ROWS), files)
        values = np.full(len(ids), None, dtype=object)
        values[pd.Index(ids).get_indexer(pd.Index(found["id"]))] = found["value"].to_numpy(object)
        n_several = int((found["n_values"] > 1).sum())
        taken[name] = (pd.Series(values).infer_objects(), len(found), n_several)
    return ids, taken


def _ask(database: duckdb.DuckDBPyConnection, query: str, files: Sequence[str]) -> pd.DataFrame:
    """Ask DuckDB, and keep integers and lists as they are."""
    return to_frame(database.sql(query, params={"files": list(files)}).to_arrow_table())


def _write(chunks: Chunks, folder: Path, *, id_column: str, names: Sequence[str]) -> list[str]:
    """Write id, time, position and values of each chunk, missing ones as null."""
    time = chunks.table.timestamp
    wanted = list(dict.fromkeys([id_column, *names, *([time] if time else [])]))
    paths, schemas = [], []
    for number in range(chunks.n_chunks):
        rows = chunks.read(number, columns=wanted)
        times = np.full(len(rows.frame), np.nan)
        if time is not None and chunks.times is not None:
            times = chunks.times.parse(rows.column(time)).values.to_numpy(np.float64)
        values = {"id": rows.column(id_column)}
        values |= {f"column_{place}": rows.column(name) for place, name in enumerate(names)}
        frame = pd.DataFrame({name: _given(column) for name, column in values.items()})
        start = chunks.start(number)
        found = to_arrow(frame, name=chunks.name).append_column(
            "time", pa.array(times, pa.float64(), from_pandas=True)
        )
        positions = np.arange(start, start + len(frame), dtype=np.int64)
        found = found.append_column("position", pa.array(positions))
        paths.append(folder / f"{number}.parquet")
        schemas.append(found.schema.remove_metadata())
        pq.write_table(found, paths[-1], compression="lz4")
    _unify(paths, schemas)
    return list(map(str, paths))


def _given(column: pd.Series) -> pd.Series:
    """A column with null for every missing value."""
    missing = is_missing(column)
    return column.mask(missing, None) if missing.any() else column


def _unify(paths: Sequence[Path], schemas: Sequence[pa.Schema]) -> None:
    """Give files the same types; a column without values in a chunk has none of its own there."""
    joined = pa.unify_schemas(schemas, promote_options="permissive")
    for path, schema in zip(paths, schemas, strict=True):
        if not schema.equals(joined):
            pq.write_table(pq.read_table(path).cast(joined), path, compression="lz4")
