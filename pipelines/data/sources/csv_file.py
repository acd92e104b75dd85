"""Read one CSV file as text in batches, with the line number of each row.

No line is dropped: those that are no rows are kept apart with their number, empty ones are counted,
and so are rows that span several lines.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.data.sources.encoding import explain_undecodable
from pipelines.data.sources.source import MalformedLine
from pipelines.data.sources.stream import BAD_COMPRESSION, open_stream
from pipelines.table_config import FileFormat
from towers.errors import ConfigError, DataError

LINE = "\x00line"
"""The column of the line, counted from 1 with the header, where each row starts; int64."""
UNIT_SEPARATOR = "\x1f"
"""Stands in for a separator of several characters, which the parser does not take."""
HEAD_BYTES = 1 << 16
"""The header is looked for in this much, or in the first block where that holds no line break."""
BLOCK_BYTES = 1 << 24
"""The parser reads this much at once; no row may be longer."""
MOST_MALFORMED = 100_000
"""With more lines that are no rows than this, the format of the file is not what was said."""


class CsvFile:
    """A CSV file in the format of `source`; the tallies are complete once all batches are read.

    A separator of one character goes with quotation marks around fields that hold it, or a line
    break; with a longer one, quotation marks have no meaning.
    """

    def __init__(self, path: Path, source: FileFormat) -> None:
        """Read the names of the columns.

        Raises:
            ConfigError: there is no such separator, quotation mark or encoding.
            DataError: the file cannot be read.
        """
        _check_format(path, source)
        self.path = path
        self.source = source
        self.malformed: list[MalformedLine] = []
        self.empty_lines = 0
        """Lines without a single value, which are no rows."""
        self.n_rows = 0
        self.spanning = 0
        """Rows, and malformed lines, that span several lines."""
        self.longest = (0, 0)
        """The first line of the longest of these, and how many lines it spans."""
        with self._readable():
            self.columns = self._read_header()
        self._waiting: deque[Any] = deque()
        """Malformed lines that the parser has met, and that have no line number yet."""
        self._next_number = 1 if source.columns else 2
        """The parser's number of the next row; it counts rows from 1 with the header."""
        self._extra_lines = 0
        """By how many lines the rows so far are longer than one line each."""

    def batches(self) -> Iterator[pa.Table]:
        """Read the rows: all columns as text, empty where nothing was given, and `LINE`.

        Raises:
            DataError: the file cannot be read.
        """

        def set_aside(line: Any) -> str:
            self._waiting.append(line)
            return "skip"

        with (
            self._readable(),
            self._stream() as stream,
            self._parse(stream, set_aside, columns=self.columns) as reader,
        ):
            for batch in reader:
                yield self._take(pa.Table.from_batches([batch]))
            empty = reader.schema.empty_table()
        yield self._take(empty)  # what is malformed behind the last row

    def _read_header(self) -> tuple[str, ...]:
        """Read the names of the columns from the first lines.

        The parser gets these lines only, and reads all of them: a parser that is left in the
        middle of a file goes on in threads of its own, even while Python shuts down.
        """
        with self._stream() as stream:
            head = stream.read(HEAD_BYTES)
            if b"\n" not in head:
                head += stream.read(BLOCK_BYTES)
        lines = pa.BufferReader(head[: head.rfind(b"\n") + 1] or head)
        with self._parse(lines, lambda line: "skip", columns=()) as reader:
            for _ in reader:
                pass
            return tuple(reader.schema.names)

    def _stream(self) -> pa.NativeFile:
        """Open the file as text in UTF-8 with a separator of one character."""
        stream = open_stream(self.path)
        if not self._is_short or codecs.lookup(self.source.encoding).name != "utf-8":
            stream = pa.TransformInputStream(stream, _Recode(self.path, self.source))
        return stream

    @property
    def _is_short(self) -> bool:
        """Whether the separator is a single byte, as the parser takes it."""
        return len(self.source.separator.encode()) == 1

    def _parse(
        self,
        stream: pa.NativeFile,
        on_malformed: Callable[[Any], str],
        *,
        columns: tuple[str, ...],
    ) -> pyarrow.csv.CSVStreamingReader:
        """Start the parser, which reads `columns` as text."""
        is_short = self._is_short
        reading = pyarrow.csv.ReadOptions(
            use_threads=False,  # so that malformed lines have numbers
            block_size=BLOCK_BYTES,
            column_names=list(self.source.columns) or None,
        )
        parsing = pyarrow.csv.ParseOptions(
            delimiter=self.source.separator if is_short else UNIT_SEPARATOR,
            quote_char=(is_short and self.source.quote) or False,
            escape_char=self.source.escape or False,
            newlines_in_values=bool(is_short and self.source.quote),
            ignore_empty_lines=False,
            invalid_row_handler=on_malformed,
        )
        as_text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
        return pyarrow.csv.open_csv(stream, reading, parsing, as_text)

    def _take(self, table: pa.Table) -> pa.Table:
        """Number the rows of a batch, and take out those that are none."""
        newlines = np.zeros(table.num_rows, dtype=np.int64)
        is_empty = np.ones(table.num_rows, dtype=np.bool_)
        for column in table.columns:
            newlines += pc.count_substring(column, "\n").to_numpy()
            is_empty &= pc.equal(column, "").to_numpy()
        lines = self._number(newlines)
        is_header = self._repeats_header(table)
        for at in np.flatnonzero(is_header).tolist():
            text = self.source.separator.join(self.columns)
            self._reject(int(lines[at]), text, reason="repeats the header line")
        self.empty_lines += int(is_empty.sum())
        table = table.append_column(LINE, pa.array(lines))
        if is_empty.any() or is_header.any():
            table = table.filter(pa.array(~is_empty & ~is_header))
        self.n_rows += table.num_rows
        self._refuse_if_mostly_malformed()
        return table

    def _number(self, newlines: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give each row of a batch its line, and those malformed lines that are among them.

        `newlines` [n] are the line breaks within each row; a quoted field may span several lines.
        """
        n = len(newlines)
        waiting = np.array([line.number for line in self._waiting], dtype=np.int64)
        numbers = self._next_number + np.arange(n + len(waiting) + 1, dtype=np.int64)
        numbers = numbers[~np.isin(numbers, waiting)]
        self._next_number = int(numbers[n])
        passed = [self._waiting.popleft() for _ in range(int((waiting < numbers[n]).sum()))]
        within = np.array([line.text.count("\n") for line in passed], dtype=np.int64)
        numbers = np.concatenate([numbers[:n], waiting[: len(passed)]])
        extra = np.concatenate([newlines, within])
        order = np.argsort(numbers)
        before = np.empty_like(extra)
        before[order] = np.cumsum(extra[order]) - extra[order]
        lines: NDArray[np.int64] = numbers + before + self._extra_lines
        self._extra_lines += int(extra.sum())
        self._tally_spans(lines, extra)
        for line, number in zip(passed, lines[n:].tolist(), strict=True):
            self._reject(number, line.text.replace(UNIT_SEPARATOR, self.source.separator))
        return lines[:n]

    def _tally_spans(self, lines: NDArray[np.int64], extra: NDArray[np.int64]) -> None:
        """Count rows that span several lines, and remember the longest."""
        self.spanning += int((extra > 0).sum())
        longest = int(extra.argmax()) if len(extra) else 0
        if len(extra) and extra[longest] and extra[longest] + 1 > self.longest[1]:
            self.longest = (int(lines[longest]), int(extra[longest]) + 1)

    def _repeats_header(self, table: pa.Table) -> NDArray[np.bool_]:
        """Mark the rows that are the header once more, as in files that were put together."""
        if self.source.columns:
            return np.zeros(table.num_rows, dtype=np.bool_)
        repeats = np.ones(table.num_rows, dtype=np.bool_)
        for name, column in zip(self.columns, table.columns, strict=True):
            if repeats.any():
                repeats &= pc.equal(column, name).to_numpy()
        return repeats

    def _reject(self, row: int, text: str, **reason: str) -> None:
        """Keep a line that is no row."""
        self.malformed.append(MalformedLine(file=str(self.path), row=row, text=text, **reason))

    def _refuse_if_mostly_malformed(self) -> None:
        """Refuse a file whose lines are not in the format that was said."""
        if len(self.malformed) > max(MOST_MALFORMED, self.n_rows):
            line = self.malformed[0]
            raise DataError(
                f"{self.path}: expected {len(self.columns)} fields a line, for the columns "
                f"{list(self.columns)}, but most lines have another number, such as line "
                f"{line.row}: {line.text[:80]!r}; check the separator, the quote setting and the "
                "header line"
            )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what the parser says of the file into an error that names the remedy."""
        remedy = "check that it is whole and that you may read it"
        try:
            yield
            return
        except UnicodeError as error:
            problem, remedy = explain_undecodable(self.path, self.source, error)
        except (OSError, *BAD_COMPRESSION) as error:
            problem = str(error)
        except pa.ArrowInvalid as error:
            problem = str(error)
            if "UTF8" in problem:
                problem, remedy = explain_undecodable(self.path, self.source, error)
            elif "straddling" in problem:
                problem = f"a row is longer than {BLOCK_BYTES >> 20} MiB"
                remedy = (
                    "a quotation mark may open a field and never close it: mend the row, or set "
                    'quote = "" where quotation marks have no meaning'
                )
        raise DataError(f"{self.path}: cannot be read: {problem}; {remedy}")


class _Recode:
    """Turns pieces of a file into UTF-8, with one character in place of a long separator."""

    def __init__(self, path: Path, source: FileFormat) -> None:
        self.path = path
        self.separator = source.separator
        self.decoder = codecs.getincrementaldecoder(source.encoding)()
        self.is_long = len(source.separator.encode()) > 1
        self.held = ""
        """Text that may be the beginning of a separator."""
        self.is_done = False

    def __call__(self, piece: Any) -> bytes:
        """Turn the next piece; the last is empty."""
        if self.is_done:
            return b""
        self.is_done = len(piece) == 0
        text = self.decoder.decode(bytes(piece), self.is_done)
        if not self.is_long:
            return text.encode()
        if UNIT_SEPARATOR in text:
            raise DataError(
                f"{self.path}: holds the control character U+001F, which cannot be read together "
                f"with the separator {self.separator!r}; use a separator of one character"
            )
        text = (self.held + text).replace(self.separator, UNIT_SEPARATOR)
        keep = 0 if self.is_done else self._begun(text)
        text, self.held = text[: len(text) - keep], text[len(text) - keep :]
        return text.encode()

    def _begun(self, text: str) -> int:
        """The length of the beginning of a separator that a text ends with."""
        lengths = range(min(len(self.separator) - 1, len(text)), 0, -1)
        return next((n for n in lengths if self.separator.startswith(text[-n:])), 0)


def _check_format(path: Path, source: FileFormat) -> None:
    """Refuse a separator, a quotation mark or an encoding that does not exist."""
    if not source.separator:
        raise ConfigError(f"{path}: expected a separator of at least one character, received ''")
    for key in ("quote", "escape"):
        if len(getattr(source, key).encode()) > 1:
            raise ConfigError(
                f'{path}: expected {key} of one character, or none (""), received '
                f"{getattr(source, key)!r}"
            )
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        raise ConfigError(
            f"{path}: expected an encoding that Python knows, such as 'utf-8' or 'latin-1', "
            f"received {source.encoding!r}"
        ) from None
