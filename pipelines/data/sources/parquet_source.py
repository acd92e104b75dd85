"""A table in Parquet files as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipelines.data.sources.arrow import to_frame
from pipelines.data.sources.files import TableFiles
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.data.sources.source import Rows, Shard, Source, describe
from pipelines.table_config import FileFormat


@dataclass(frozen=True, kw_only=True, eq=False)
class ParquetSource(Source):
    """Rows of Parquet files, read where they are asked for."""

    files: SourceFiles

    @classmethod
    def open(cls, files: TableFiles, table: FileFormat, *, name: str) -> ParquetSource:
        """Look at the files, without reading their rows.

        Raises:
            DataError: a file cannot be read, or the files do not fit together.
        """
        opened = SourceFiles.of(files, name=name)
        return cls(
            name=name,
            where=describe(name, [str(path) for path in opened.paths]),
            typed=True,
            columns=tuple(opened.schema.names),
            n_rows=opened.n_rows,
            null_values=frozenset(table.null_values),
            notes=opened.notes,
            files=opened,
        )

    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Read some columns of the rows from a position up to another; see `Source.read`."""
        names = list(self.columns if columns is None else columns)
        [rows] = self.files.batches(start, columns=names, sizes=[stop - start])
        ends = accumulate(self.files.counts)
        shards = []
        for path, count, end in zip(self.files.paths, self.files.counts, ends, strict=True):
            first = end - count
            within = range(max(start - first, 0) + 1, min(stop - first, count) + 1)
            shards.append(Shard(file=str(path), rows=within))
        return Rows(
            name=self.name,
            where=self.where,
            frame=to_frame(rows),
            typed=True,
            shards=tuple(shards),
            null_values=self.null_values,
        )
