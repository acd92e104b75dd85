"""The Parquet files of a table: a stream of batches, from any row on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.sources.files import TableFiles, table_files
from pipelines.data.sources.source import check_unique, note_files
from serving.version.manifest import FileRecord
from towers.errors import DataError

BUFFER_BYTES = 1 << 20
"""Of a column of a row group, so much is read at a time, however large the group."""

LARGEST_PIECE = 65_536
"""Rows that are decoded at a time."""


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """A table in Parquet: one file, or the files of a folder in order of their names."""

    name: str
    """What to call it, such as users."""
    paths: tuple[Path, ...]
    counts: tuple[int, ...]
    """The rows of each."""
    schema: pa.Schema
    """The columns in the order of the first file, each of a type that holds those of all files."""
    keys: tuple[Mapping[str, str | None], ...]
    """The columns of each file that are named by the folders it lies in; see `TableFile`."""
    notes: tuple[str, ...] = ()
    """What the report is to say about how the files were put together."""

    @classmethod
    def open(cls, path: Path, *, name: str) -> SourceFiles:
        """Look at the files of a table, without reading their rows.

        Raises:
            DataError: there is none, one is not Parquet, or they do not fit together.
        """
        files = table_files(path, name=name)
        if not files.is_parquet:
            raise DataError(
                f"{name}: {path}: expected a Parquet file, or a folder of *.parquet files, "
                f"received {files.files[0].path.name}; convert it"
            )
        return cls.of(files, name=name)

    @classmethod
    def of(cls, files: TableFiles, *, name: str) -> SourceFiles:
        """Look at files that are known to be the table's; see `open`."""
        counts, schemas = [], []
        for shard in files.files:
            with _readable(shard.path), pq.ParquetFile(shard.path) as file:
                counts.append(file.metadata.num_rows)
                schemas.append(file.schema_arrow)
            check_unique(schemas[-1].names, where=f"{name} ({shard.path})")
            if set(schemas[-1].names) != set(schemas[0].names):
                raise DataError(
                    f"{name}: expected the same columns in every shard, but "
                    f"{files.files[0].path} has {schemas[0].names} and {shard.path} has "
                    f"{schemas[-1].names}; mend the shard"
                )
        paths = tuple(shard.path for shard in files.files)
        try:
            schema = pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()
        except pa.ArrowException as error:
            raise _different(name, paths[0].parent, error) from None
        keys = [key for key in files.keys if key not in schema.names]
        given = tuple({key: dict(shard.keys)[key] for key in keys} for shard in files.files)
        for key in keys:
            schema = schema.append(pa.field(key, _key_type([values[key] for values in given])))
        notes = (*note_files(paths, counts), *_note_types(schemas, paths, schema))
        return cls(name, paths, tuple(counts), schema, given, notes)

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
        for path, count, end, keys in zip(self.paths, self.counts, ends, self.keys, strict=True):
            if end <= start:
                continue
            stored = [name for name in columns if name not in keys]
            with (
                _readable(path),
                pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
            ):
                skip = max(start - (end - count), 0)
                groups = list(range(file.num_row_groups))
                while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
                    skip -= file.metadata.row_group(groups.pop(0)).num_rows
                for batch in file.iter_batches(LARGEST_PIECE, groups, columns=stored):
                    kept = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - kept.num_rows
                    if kept.num_rows:
                        yield self._with_keys(kept, keys).select(columns)

    def _with_keys(self, batch: pa.RecordBatch, keys: Mapping[str, str | None]) -> pa.Table:
        """Add the columns that a file's folders name."""
        table = pa.Table.from_batches([batch])
        for key, value in keys.items():
            field = self.schema.field(key)
            repeated = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            table = table.append_column(field, repeated.cast(field.type))
        return table

    def _join(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Put tables one after another."""
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise _different(self.name, self.paths[0].parent, error) from None


def _key_type(values: Sequence[str | None]) -> pa.DataType:
    """The type of a column that folders name: integers if all look so, else text."""
    present = [value for value in values if value is not None]
    if present and all(value.isdecimal() and str(int(value)) == value for value in present):
        return pa.int64()
    return pa.string()


def _note_types(
    schemas: Sequence[pa.Schema], paths: Sequence[Path], joined: pa.Schema
) -> Iterator[str]:
    """Say which columns are read with another type than a file gives them."""
    for name in schemas[0].names:
        types = [schema.field(name).type for schema in schemas]
        other = next((n for n, type_ in enumerate(types) if type_ != types[0]), None)
        if other is not None:
            yield (
                f"column {name!r} is {types[0]} in {paths[0]} and {types[other]} in "
                f"{paths[other]}; it is read as {joined.field(name).type}"
            )


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
