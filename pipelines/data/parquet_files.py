"""The Parquet files of a table: a stream of batches, from any row on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.tables import PARQUET_SUFFIXES, check_unique
from serving.version.manifest import FileRecord
from towers.errors import DataError

BUFFER_BYTES = 1 << 20
"""Of a column of a row group, so much is read at a time, however large the group."""

LARGEST_PIECE = 65_536
"""Rows that are decoded at a time."""


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """A table in Parquet: one file, or the shards of a folder in order of their names."""

    name: str
    """What to call it, such as users."""
    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    """The rows of each."""
    schema: pa.Schema
    """The columns in the order of the first file, each of a type that holds those of all files."""

    @classmethod
    def open(cls, path: Path, *, name: str) -> SourceFiles:
        """Look at the files of a table, without reading their rows.

        Raises:
            DataError: there is none, one is not Parquet, or they do not fit together.
        """
        paths = _list(path, name=name)
        counts, schemas = [], []
        for shard in paths:
            with _readable(shard), pq.ParquetFile(shard) as file:
                counts.append(file.metadata.num_rows)
                schemas.append(file.schema_arrow)
        for shard, schema in zip(paths, schemas, strict=True):
            check_unique(schema.names, where=f"{name} ({shard})")
            if set(schema.names) != set(schemas[0].names):
                raise DataError(
                    f"{name}: expected the same columns in every shard, but {paths[0]} has "
                    f"{schemas[0].names} and {shard} has {schema.names}; mend the shard"
                )
        try:
            schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise _different(name, paths[0].parent, error) from None
        return cls(name, tuple(paths), tuple(counts), schema)

    @property
    def n_rows(self) -> int:
        """The rows of all files."""
        return sum(self.counts)

    def fingerprint(self) -> list[dict[str, Any]]:
        """Name, size and sha256 of each file; reads all of them, in pieces."""
        found: list[dict[str, Any]] = []
        for path in self.paths:
            with _readable(path):
                record = FileRecord.of(path)
            found.append({"name": path.name, **dataclasses.asdict(record)})
        return found

    def batches(
        self, start: int, *, columns: Sequence[str], sizes: Iterable[int]
    ) -> Iterator[pa.Table]:
        """Read rows from `start` on, in batches of just these sizes, which the rows must suffice.

        Raises:
            DataError: a file cannot be read, or the columns of the files differ in type.
        """
        pieces = self._pieces(start, columns)
        held, n_held = [self.schema.empty_table().select(columns)], 0
        for size in sizes:
            while n_held < size:
                piece = next(pieces)
                held.append(piece)
                n_held += piece.num_rows
            joined = self._join(held)
            yield joined.slice(0, size)
            held, n_held = [joined.slice(size)], n_held - size

    def _pieces(self, start: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read rows from `start` on, as they come; row groups before it are not decoded."""
        ends = accumulate(self.counts)
        for path, count, end in zip(self.paths, self.counts, ends, strict=True):
            if end <= start:
                continue
            with (
                _readable(path),
                pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
            ):
                skip = max(start - (end - count), 0)
                groups = list(range(file.num_row_groups))
                while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
                    skip -= file.metadata.row_group(groups.pop(0)).num_rows
                for batch in file.iter_batches(LARGEST_PIECE, groups, columns=list(columns)):
                    kept = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - kept.num_rows
                    if kept.num_rows:
                        yield pa.Table.from_batches([kept]).select(columns)

    def _join(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Put tables one after another."""
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise _different(self.name, self.paths[0].parent, error) from None


def _list(path: Path, *, name: str) -> list[Path]:
    """The files of a table."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{name}: no such file or folder: {path}; check the path")
    found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in PARQUET_SUFFIXES]
    shards = [p for p in found if p.is_file() and p.name[0] not in "._"]
    if not shards:
        raise DataError(
            f"{name}: expected *.parquet shards in the folder {path}, received none; name a "
            "Parquet file, or a folder of them"
        )
    return shards


def _different(name: str, folder: Path, error: pa.ArrowException) -> DataError:
    """The error of shards whose columns cannot be put one after another."""
    return DataError(
        f"{name}: the columns of the shards of {folder} differ in type: {error}; write all shards "
        "with the same types"
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in an error."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: expected a Parquet file, received {error}; check that it is whole and that "
            "you may read it"
        ) from None
