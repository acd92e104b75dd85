"""Open the table that a configuration names as a source."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.sources.files import table_files
from pipelines.data.sources.parquet_source import ParquetSource
from pipelines.data.sources.source import Source
from pipelines.data.sources.text_source import TextSource
from pipelines.table_config import FileFormat


def open_source(table: FileFormat, *, name: str, stage: Path | None = None) -> Source:
    """Look at the file or the folder that `table` names, and read it if it is text.

    Large CSV and JSON lines are written to the folder `stage`, and stay on disk; without one, they
    are in memory.

    Raises:
        ConfigError: no path is given, or there is no such separator, quotation mark or encoding.
        DataError: there is nothing to read, it cannot be read, or files do not fit together.
    """
    files = table_files(table.path, name=name)
    if files.is_parquet:
        return ParquetSource.open(files, table, name=name)
    return TextSource.open(files, table, name=name, stage=stage)
