"""Read one CSV file as text, with the line number of each row.

No line is dropped: those with a wrong number of fields are kept apart, and empty ones counted.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.config import FileFormat
from towers.errors import ConfigError, DataError

UNIT_SEPARATOR = "\x1f"
"""Stands in for a separator of several characters, which the parser does not take."""
BLOCK_BYTES = 1 << 24
"""The parser reads this much at once; no line may be longer."""


@dataclass(frozen=True, kw_only=True)
class MalformedLine:
    """A line whose number of fields is not the number of columns."""

    file: str
    row: int
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CsvFile:
    """What a file holds."""

    table: pa.Table
    """All columns as text, empty where nothing was given."""
    rows: range | NDArray[np.int64]
    """The line, counted from 1 with the header, where each row of the table starts."""
    malformed: tuple[MalformedLine, ...]
    empty_lines: int
    """Lines without a single value, which are no rows."""


def read_csv(path: Path, source: FileFormat) -> CsvFile:
    """Read a file in the format of `source`.

    A separator of one character goes with quotation marks around fields that hold it, or a line
    break; with a longer one, quotation marks have no meaning.

    Raises:
        ConfigError: there is no such separator or encoding.
        DataError: the file holds U+001F, and the separator is a long one.
        OSError, UnicodeError, pyarrow.ArrowException: the file cannot be read.
    """
    _check_format(path, source)
    is_short = len(source.separator.encode()) == 1
    delimiter = source.separator if is_short else UNIT_SEPARATOR
    content = None if is_short else _with_unit_separators(path, source)
    reading = pa.csv.ReadOptions(
        use_threads=False,  # so that malformed lines have numbers
        block_size=BLOCK_BYTES,
        column_names=list(source.columns) or None,
        encoding=source.encoding if is_short else "utf-8",
    )

    def opened() -> Any:
        return path if content is None else pa.BufferReader(content)

    def parsing(on_malformed: Callable[[Any], str]) -> pa.csv.ParseOptions:
        return pa.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if is_short else False,
            newlines_in_values=is_short,
            ignore_empty_lines=False,
            invalid_row_handler=on_malformed,
        )

    with pa.csv.open_csv(opened(), reading, parsing(lambda line: "skip")) as head:
        as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(head.schema.names, pa.string()))
    malformed: list[Any] = []

    def set_aside(line: Any) -> str:
        malformed.append(line)
        return "skip"

    table = pa.csv.read_csv(opened(), reading, parsing(set_aside), as_text)
    lines = [(line.number, line.text.replace(delimiter, source.separator)) for line in malformed]
    return _number_lines(table, lines, file=str(path), has_header=not source.columns)


def _check_format(path: Path, source: FileFormat) -> None:
    """Refuse a separator or an encoding that does not exist."""
    if not source.separator:
        raise ConfigError(f"{path}: expected a separator of at least one character, received ''")
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        raise ConfigError(
            f"{path}: expected an encoding that Python knows, such as 'utf-8' or 'latin-1', "
            f"received {source.encoding!r}"
        ) from None


def _with_unit_separators(path: Path, source: FileFormat) -> bytes:
    """Read a file whose separator is longer than a byte; such files know no quotes."""
    text = path.read_text(encoding=source.encoding)
    if UNIT_SEPARATOR in text:
        raise DataError(
            f"{path}: holds the control character U+001F, which cannot be read together with the "
            f"separator {source.separator!r}; use a separator of one character"
        )
    return text.replace(source.separator, UNIT_SEPARATOR).encode()


def _number_lines(
    table: pa.Table, malformed: Sequence[tuple[int, str]], *, file: str, has_header: bool
) -> CsvFile:
    """Take out empty lines, and number the others; a quoted field may span several lines.

    `malformed` holds numbers and texts; the parser numbers whole rows from 1 with the header.
    """
    first = 2 if has_header else 1
    newlines = np.zeros(table.num_rows, dtype=np.int64)
    is_empty = np.ones(table.num_rows, dtype=np.bool_)
    for column in table.columns:
        newlines += pc.count_substring(column, "\n").to_numpy()
        is_empty &= pc.equal(column, "").to_numpy()
    at = np.array([number - first for number, _ in malformed], dtype=np.int64)
    spans = np.ones(table.num_rows + len(malformed), dtype=np.int64)
    is_row = np.ones(len(spans), dtype=np.bool_)
    is_row[at] = False
    spans[is_row] += newlines
    spans[at] += np.array([text.count("\n") for _, text in malformed], dtype=np.int64)
    numbers = first + np.cumsum(spans) - spans
    rows: range | NDArray[np.int64] = numbers[is_row][~is_empty]
    if len(rows) == 0 or (rows[0] == first and rows[-1] == first + len(rows) - 1):
        rows = range(first, first + len(rows))  # the usual case, in no memory
    return CsvFile(
        table=table.filter(pa.array(~is_empty)) if is_empty.any() else table,
        rows=rows,
        malformed=tuple(
            MalformedLine(file=file, row=int(row), text=text)
            for row, (_, text) in zip(numbers[at], malformed, strict=True)
        ),
        empty_lines=int(is_empty.sum()),
    )
