"""Read one file whose lines are lists of any length: an id, and the values that belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines.data.sources.csv_file import LINE
from pipelines.data.sources.source import MalformedLine
from pipelines.data.sources.stream import read_lines
from pipelines.table_config import EntityTable, FileFormat, InteractionsTable
from towers.errors import ConfigError

BATCH = 1 << 18
"""Rows that are put into columns at a time."""
BETWEEN = "|"
"""What stands between the values of a list in its cell, as multi-valued features expect it."""


class ListFile:
    """A file of lists; the tallies are complete once all batches are read.

    Of interactions each value is a row; of users and items each line is one, whose values are a
    text.
    """

    def __init__(self, path: Path, source: FileFormat) -> None:
        """Take how the file is written.

        Raises:
            ConfigError: its columns are not two.
        """
        self.path, self.source = path, source
        self.malformed: list[MalformedLine] = []
        self.empty_lines = 0
        self.n_rows = 0
        self.columns = source.columns or _names(source)
        if len(self.columns) != 2:  # noqa: PLR2004
            raise ConfigError(
                f"{path}: expected two columns for lists, of ids and of values, received "
                f"{list(self.columns)}"
            )

    def batches(self) -> Iterator[pa.Table]:
        """Read the rows: both columns as text, and `LINE`.

        Raises:
            DataError: the file cannot be read.
        """
        ids: list[str] = []
        values: list[str] = []
        lines: list[int] = []
        is_long = isinstance(self.source, InteractionsTable)
        for number, line in read_lines(self.path, self.source.encoding):
            found = self._parse(number, line.decode())
            if found is None:
                continue
            id, cells = found
            cells = cells if is_long else [BETWEEN.join(cells)]
            ids += [id] * len(cells)
            values += cells
            lines += [number] * len(cells)
            if len(ids) >= BATCH:
                yield self._table(ids, values, lines)
                ids, values, lines = [], [], []
        yield self._table(ids, values, lines)

    def _parse(self, number: int, text: str) -> tuple[str, list[str]] | None:
        """Read a line as an id and its values; None if it is no row."""
        separator = self.source.separator
        found = text.split() if separator == " " else [one.strip() for one in text.split(separator)]
        found = [one for one in found if one]
        if self.source.lists == "values":
            return str(number - 1), found
        if not found:
            self.empty_lines += 1
            return None
        first, *values = found
        if self.source.lists == "id":
            return first, values
        if first != str(len(values)):
            reason = "another number of values than its first says"
            self.malformed.append(
                MalformedLine(file=str(self.path), row=number, text=text, reason=reason)
            )
            return None
        return str(number - 1), values

    def _table(self, ids: list[str], values: list[str], lines: list[int]) -> pa.Table:
        self.n_rows += len(ids)
        columns = [pa.array(ids, pa.string()), pa.array(values, pa.string())]
        return pa.table([*columns, pa.array(lines, pa.int64())], names=[*self.columns, LINE])


def _names(source: FileFormat) -> tuple[str, ...]:
    """The columns as the table calls them."""
    if isinstance(source, InteractionsTable):
        return source.user, source.item
    return source.id if isinstance(source, EntityTable) else "id", "values"
