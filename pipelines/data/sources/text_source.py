"""A table in CSV or JSON lines as a source: small ones in memory, large ones staged in Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.data.sources.arrow import to_frame
from pipelines.data.sources.csv_file import LINE, CsvFile
from pipelines.data.sources.files import TableFile, TableFiles
from pipelines.data.sources.json_file import JsonFile, schema_of
from pipelines.data.sources.list_file import ListFile
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.data.sources.source import Rows, Shard, Source, check_unique, describe, note_files
from pipelines.table_config import FileFormat
from towers.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSource(Source):
    """Rows of CSV files, as text; or of JSON lines, whose values have types."""

    files: tuple[str, ...]
    counts: tuple[int, ...]
    """The rows of each."""
    rows: pd.DataFrame | SourceFiles
    """All columns, and `LINE`, in memory or in Parquet files."""

    @classmethod
    def open(
        cls, files: TableFiles, table: FileFormat, *, name: str, stage: Path | None
    ) -> TextSource:
        """Read the files; large ones are written to the folder `stage`, and stay on disk.

        Raises:
            ConfigError: there is no such separator, quotation mark or encoding.
            DataError: a file cannot be read, or the files do not fit together.
        """
        is_json = files.kind == "json"
        if table.lists in {"count", "values"} and len(files.files) > 1:
            raise DataError(
                f"{name}: expected one file of lists whose ids are the numbers of their lines, "
                f"received {len(files.files)}; put them together, or begin each line with its id"
            )
        shards = [_Shard(file, table, name=name, is_json=is_json) for file in files.files]
        for shard in shards[1:]:
            shard.check_columns(shards[0], name=name)
        schema = _schema(shards)
        null_values = frozenset(table.null_values)
        rows: pd.DataFrame | SourceFiles
        if stage is not None and files.is_large_text:
            rows = _staged(shards, stage / name, name=name, schema=schema)
        else:
            held = pa.concat_tables(batch for shard in shards for batch in shard.batches(schema))
            null_values = _found_in(held.drop_columns(LINE), null_values)
            rows = to_frame(held)
        counts = tuple(shard.file.n_rows for shard in shards)
        paths = tuple(str(shard.file.path) for shard in shards)
        return cls(
            name=name,
            where=describe(name, paths),
            typed=is_json,
            columns=tuple(schema.names),
            n_rows=sum(counts),
            malformed=tuple(line for shard in shards for line in shard.file.malformed),
            empty_lines=sum(shard.file.empty_lines for shard in shards),
            notes=(
                *note_files([shard.file.path for shard in shards], counts),
                *_notes([shard.file for shard in shards if isinstance(shard.file, CsvFile)]),
            ),
            null_values=null_values,
            files=paths,
            counts=counts,
            rows=rows,
        )

    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Read some columns of the rows from a position up to another; see `Source.read`."""
        names = [*(self.columns if columns is None else columns), LINE]
        if isinstance(self.rows, SourceFiles):
            [table] = self.rows.batches(start, columns=names, sizes=[stop - start])
            frame = to_frame(table)
        else:
            frame = self.rows[names].iloc[start:stop].reset_index(drop=True)
        lines = frame.pop(LINE).to_numpy()
        ends = [min(max(end - start, 0), len(lines)) for end in accumulate(self.counts)]
        shards = [
            Shard(file=file, rows=lines[first:last])
            for file, first, last in zip(self.files, [0, *ends], ends, strict=False)
        ]
        return Rows(
            name=self.name,
            where=self.where,
            frame=frame,
            typed=self.typed,
            shards=tuple(shards),
            null_values=self.null_values,
        )


class _Shard:
    """One of the files, with the columns that its folders name."""

    def __init__(self, file: TableFile, table: FileFormat, *, name: str, is_json: bool) -> None:
        reader = JsonFile if is_json else CsvFile if table.lists is None else ListFile
        self.file: JsonFile | CsvFile | ListFile = reader(file.path, table)
        check_unique(self.file.columns, where=f"{name} ({file.path})")
        self.keys = {key: value for key, value in file.keys if key not in self.file.columns}
        self.columns = (*self.file.columns, *self.keys)

    def check_columns(self, first: _Shard, *, name: str) -> None:
        """Refuse CSV with other columns than the first shard; their order may differ."""
        if isinstance(self.file, CsvFile) and set(self.columns) != set(first.columns):
            raise DataError(
                f"{name}: expected the same columns in every shard, but {first.file.path} has "
                f"{list(first.columns)} and {self.file.path} has {list(self.columns)}; mend the "
                "shard"
            )

    def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Read the rows, in the columns of all shards, and `LINE`."""
        if isinstance(self.file, JsonFile):
            own = pa.schema([one for one in schema if one.name not in self.keys])
            batches = self.file.batches(own)
        else:
            batches = self.file.batches()
        for batch in batches:
            table = batch
            for key, value in self.keys.items():
                repeated = np.full(batch.num_rows, value or "", dtype=object)
                table = table.append_column(key, pa.array(repeated, pa.string()))
            yield table.select([*schema.names, LINE])


def _schema(shards: Sequence[_Shard]) -> pa.Schema:
    """The columns of all shards."""
    found = schema_of([shard.file for shard in shards if isinstance(shard.file, JsonFile)])
    names = dict.fromkeys(
        name
        for shard in shards
        for name in (shard.keys if isinstance(shard.file, JsonFile) else shard.columns)
    )
    others = [pa.field(name, pa.string()) for name in names if name not in found.names]
    return pa.schema([*found, *others])


def _staged(shards: Sequence[_Shard], folder: Path, *, name: str, schema: pa.Schema) -> SourceFiles:
    """Write each file's rows to a Parquet file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = schema.append(pa.field(LINE, pa.int64()))
    files = []
    for number, shard in enumerate(shards):
        path = folder / f"{number:06d}.parquet"
        with pq.ParquetWriter(path, numbered, compression="lz4") as writer:
            for batch in shard.batches(schema):
                writer.write_table(batch)
        files.append(TableFile(path=path))
    return SourceFiles.of(TableFiles(files=tuple(files), kind="parquet"), name=name)


def _found_in(rows: pa.Table, texts: frozenset[str]) -> frozenset[str]:
    """Keep the texts that occur as a value, so that columns are not searched for the others."""
    wanted = pa.array(sorted(texts), pa.string())
    return frozenset(
        text
        for column in rows.columns
        if pa.types.is_string(column.type)
        for text in pc.unique(column.filter(pc.is_in(column, wanted))).to_pylist()
    )


def _notes(files: Sequence[CsvFile]) -> tuple[str, ...]:
    """Say which rows span several lines, since a stray quotation mark may have swallowed them."""
    spanning = sum(file.spanning for file in files)
    if not spanning:
        return ()
    longest = max(files, key=lambda file: file.longest[1])
    line, n_lines = longest.longest
    return (
        f"{spanning:,} row(s) span several lines, as quoted fields may; the longest is "
        f"{longest.path}:{line}, over {n_lines:,} lines (if quotation marks have no meaning in "
        'this table, set quote = "")',
    )
