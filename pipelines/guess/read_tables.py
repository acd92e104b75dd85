"""Read the tables that a configuration is to be written for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.data.sources.files import TableFiles, table_files
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Source
from pipelines.guess.name_hints import PROPERTIES, file_fits, fits
from pipelines.guess.profile_columns import Column, columns_of
from pipelines.guess.read_format import read_format
from pipelines.guess.read_lists import read_lists
from pipelines.table_config import EntityTable, FileFormat, InteractionsTable
from towers.errors import DataError

MOST_ROWS = 1_000_000
"""Of a table, so many rows are looked at, from its beginning."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table, and what its columns look like."""

    path: Path
    format: dict[str, Any]
    """The settings of `FileFormat` but the path that differ from their defaults."""
    n_rows: int
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it."""
        return self.path.name

    @property
    def is_sampled(self) -> bool:
        """Whether only some of its rows were looked at."""
        return self.n_rows > MOST_ROWS

    def column(self, name: str) -> Column:
        """One of the columns."""
        return next(column for column in self.columns if column.name == name)

    def rename(self, names: dict[str, str]) -> Table:
        """Give columns of a file without a header other names."""
        columns = tuple(replace(one, name=names.get(one.name, one.name)) for one in self.columns)
        listed = [column.name for column in columns]
        return replace(self, columns=columns, format=self.format | {"columns": listed})

    @property
    def has_header(self) -> bool:
        """Whether the file names its columns."""
        return "columns" not in self.format


def expand(paths: Sequence[Path]) -> list[Path]:
    """List the tables: a folder is one if all its files are alike, and else each file of it is.

    Raises:
        DataError: there is no such file.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(one for one in path.iterdir() if one.name[0] not in "._")
        is_one = len({_series(one) for one in inside}) == 1
        found += [path] if is_one else expand(inside)
    return found


def _series(path: Path) -> str:
    """What the shards of a table have in common: part-0001.parquet, day=2."""
    if path.is_dir():
        return path.name.partition("=")[0] if "=" in path.name else str(path)
    return path.name.partition(".")[0].rstrip("0123456789-_")


def read_table(path: Path) -> Table:
    """Find out how a table is written, and read its rows.

    Raises:
        DataError: it cannot be read, or is no table.
    """
    files = table_files(path, name=path.name)
    settings, notes = _settings(files)
    described = _described(path, settings)
    with TemporaryDirectory() as stage:
        source = open_source(described, name="table", stage=Path(stage))
        if not source.n_rows:
            raise DataError(f"{path}: no rows; leave it out")
        rows = source.read(0, min(source.n_rows, MOST_ROWS))
    return Table(
        path=path,
        format={
            key: value for key, value in settings.items() if value != getattr(FileFormat(), key)
        },
        n_rows=source.n_rows,
        columns=tuple(columns_of(rows)),
        notes=(*notes, *_said(source)),
    )


def _described(path: Path, settings: dict[str, Any]) -> FileFormat:
    """How to read a table; of lists, those of users or items have a row a line."""
    described: dict[str, Any] = {"path": str(path), **settings}
    if "lists" not in settings:
        return FileFormat(**described)
    is_item = file_fits(path, "item") and not file_fits(path, "user")
    if fits(path.name, PROPERTIES) or (is_item and not file_fits(path, "interaction")):
        return EntityTable(id=settings["columns"][0], **described)
    return InteractionsTable(**described)


def _settings(files: TableFiles) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings to read files with."""
    if files.kind != "csv":
        return {}, ()
    try:
        found = read_format(files.files[0].path)
    except DataError:
        lists = read_lists(files.files[0].path)
        if lists is None:
            raise
        return lists, (f"each line is a list; what stands first: {lists['lists']}",)
    settings: dict[str, Any] = {
        "separator": found.separator,
        "encoding": found.encoding,
        "quote": found.quote,
        "escape": found.escape,
    }
    notes = found.notes
    if not found.has_header:
        settings["columns"] = tuple(f"column_{n + 1}" for n in range(found.n_columns))
        notes = (*notes, "no header line: the names of the columns are guesses, too")
    return settings, notes


def _said(source: Source) -> list[str]:
    """What was said of lines that are no rows."""
    lines = [f"{len(source.malformed):,} line(s) are no rows"] if source.malformed else []
    return lines + list(source.notes)
