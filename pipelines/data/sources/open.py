"""Open the table that a configuration names as a source."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import FileFormat
from pipelines.data.sources.csv_source import CsvSource
from pipelines.data.sources.files import table_files
from pipelines.data.sources.parquet_source import ParquetSource
from pipelines.data.sources.source import Source


def open_source(table: FileFormat, *, name: str, stage: Path | None = None) -> Source:
    """Look at the file or the folder that `table` names, and read it if it is CSV.

    Large CSV is written to the folder `stage`, and stays on disk; without one, it is in memory.

    Raises:
        ConfigError: no path is given, or there is no such separator, quotation mark or encoding.
        DataError: there is nothing to read, it cannot be read, or files do not fit together.
    """
    files = table_files(table.path, name=name)
    if files.is_parquet:
        return ParquetSource.open(files, table, name=name)
    return CsvSource.open(files, table, name=name, stage=stage)
