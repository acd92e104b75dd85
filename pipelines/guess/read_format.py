"""Read the beginning of a file, and find out how it is written: separator, quoting, encoding."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from pipelines.data.columns.times import TimeReading
from pipelines.data.sources.encoding import BYTE_ORDER_MARKS
from pipelines.data.sources.stream import open_stream
from towers.errors import DataError
from towers.features.values import number_of

HEAD_BYTES = 1 << 18
PIECE = 1 << 20
LINES = 300
"""How many lines tell the format."""
SEPARATORS = ("::", "\t", ";", ",", "|", "\x01", " ")
"""What may stand between fields; of those that fit equally, the one with more fields counts."""
FITS = 0.8
"""A separator fits if this share of the lines has one number of fields."""
ALIKE = 0.05
"""Separators that fit within this of the best fit as well."""
FEWEST = 2
"""A table has at least so many columns."""
BACKSLASH = b'\\"'
NAME = re.compile(r"[^\W\d][\w .:/()#%$-]{0,60}")
"""What the name of a column looks like."""


@dataclass(frozen=True, kw_only=True)
class CsvFormat:
    """How a CSV file is written, in the words of `FileFormat`."""

    separator: str
    encoding: str
    quote: str
    escape: str
    n_columns: int
    has_header: bool
    notes: tuple[str, ...]
    """What was seen, where it is not what is usual."""


def read_format(path: Path) -> CsvFormat:
    """Find out how a CSV file is written.

    Raises:
        DataError: it cannot be read, or its lines are no rows of one table.
    """
    try:
        with open_stream(path) as stream:
            head = stream.read(HEAD_BYTES)
        encoding, escaped = _scan(path)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}; check that it is whole") from None
    if b"\x00" in head and encoding != "utf-16":
        raise DataError(f"{path}: no text, and no Parquet by its name; leave it out, or rename it")
    text = head.decode(encoding, "ignore").removeprefix("\ufeff")
    lines = [line for line in text.splitlines() if line.strip()][: LINES + 1]
    if len(head) == HEAD_BYTES:
        lines = lines[:-1] or lines  # the last is cut off
    separator, score, n_columns = _separator(lines)
    if score < FITS:
        raise DataError(
            f"{path}: no table: no separator gives most of its lines the same number of fields, "
            "at least two"
        )
    quote = _quote(lines, separator)
    escape = _escape([line.decode(encoding, "replace") for line in escaped], separator, n_columns)
    rows = _cut(lines, separator, quote=quote, escape=escape)
    rows = [row for row in rows if len(row) == n_columns]
    notes = [] if encoding == "utf-8" else [f"text in {encoding}: it is not UTF-8"]
    if escape:
        notes.append("a backslash stands before quotation marks within fields")
    return CsvFormat(
        separator=separator,
        encoding=encoding,
        quote=quote,
        escape=escape,
        n_columns=n_columns,
        has_header=_has_header(rows),
        notes=tuple(notes),
    )


def _scan(path: Path) -> tuple[str, list[bytes]]:
    """Read a file whole: its encoding, and some lines in which a backslash precedes a quote."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8, high = True, False
    escaped: list[bytes] = []
    with open_stream(path) as stream:
        first = True
        while piece := stream.read(PIECE):
            if first:
                first = False
                for mark, encoding in BYTE_ORDER_MARKS.items():
                    if piece.startswith(mark):
                        return encoding, []
            if is_utf8:
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError:
                    is_utf8 = False
            if not is_utf8:
                high = high or re.search(rb"[\x80-\x9f]", piece) is not None
            if BACKSLASH in piece and len(escaped) < LINES:
                escaped += [line for line in piece.split(b"\n")[1:-1] if BACKSLASH in line]
    if is_utf8:
        return "utf-8", escaped
    return "cp1252" if high and _decodes(path, "cp1252") else "latin-1", escaped


def _decodes(path: Path, encoding: str) -> bool:
    """Whether a whole file is text in an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open_stream(path) as stream:
            while piece := stream.read(PIECE):
                decoder.decode(piece)
    except UnicodeDecodeError:
        return False
    return True


def _separator(lines: Sequence[str]) -> tuple[str, float, int]:
    """The separator that gives most lines one number of fields, how well it does, and how many."""
    escape = "\\" if any('\\"' in line for line in lines) else ""
    scores: dict[str, tuple[float, int]] = {}
    for separator, mark in product(SEPARATORS, {"", escape}):
        rows = _cut(lines, separator, quote='"', escape=mark)
        [(n_fields, count)] = Counter(map(len, rows)).most_common(1) if rows else [(0, 0)]
        if n_fields < FEWEST:
            continue
        stray = 0.0 if mark else sum(any('"' in one for one in row) for row in rows) / len(rows)
        is_odd = len(rows[0]) != n_fields
        score = round(count / len(rows) - 0.3 * stray - 0.3 * is_odd, 2)
        scores[separator] = max(scores.get(separator, (0.0, 0)), (score, n_fields))
    if not scores:
        return ",", 0.0, 0
    most = max(score for score, _ in scores.values())
    fit = [one for one in scores if scores[one][0] >= most - ALIKE]
    # spaces stand within fields, too; two characters hardly ever do
    best = max(fit, key=lambda one: (one != " ", len(one), scores[one][1]))
    return best, *scores[best]


def _cut(lines: Sequence[str], separator: str, *, quote: str, escape: str = "") -> list[list[str]]:
    """Cut lines into fields."""
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    reader = csv.reader(
        lines,
        delimiter=separator,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape or None,
        doublequote=not escape,
    )
    try:
        return list(reader)
    except csv.Error:
        return []


def _quote(lines: Sequence[str], separator: str) -> str:
    """The quotation mark: none where marks stand within fields, but around none."""
    if len(separator) > 1:
        return '"'  # has no meaning then
    around = re.compile(rf'(?:^|{re.escape(separator)})"')
    has_marks = any('"' in line for line in lines)
    return "" if has_marks and not any(around.search(line) for line in lines) else '"'


def _escape(lines: Sequence[str], separator: str, n_columns: int) -> str:
    """A backslash, if lines with one before a quotation mark have the right fields only then."""
    if len(separator) > 1 or not lines:
        return ""
    plain, escaped = (
        sum(len(row) == n_columns and not _is_torn(row) for row in rows)
        for rows in (
            [row for line in lines for row in _cut([line], separator, quote='"')],
            [row for line in lines for row in _cut([line], separator, quote='"', escape="\\")],
        )
    )
    return "\\" if escaped >= plain else ""


def _is_torn(row: Sequence[str]) -> bool:
    """Whether a field was ended by a quotation mark that was meant to be in it."""
    return any("\\" in field and field.count('"') % 2 for field in row)


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: texts like names, unlike those below."""
    first, rest = rows[0], rows[1:]
    names = [name.strip() for name in first]
    if not names[0]:  # what pandas writes above its index
        first, rest, names = first[1:], [row[1:] for row in rest], names[1:]
    if len({*names}) < len(names) or not all(NAME.fullmatch(name) for name in names):
        return False
    if not rest:
        return True
    below = [{row[place] for row in rest} for place in range(len(names))]
    if any(name in values for name, values in zip(first, below, strict=True)):
        return False
    return any(map(_are_values, below)) or all(re.fullmatch(r"[\w .:-]+", n) for n in names)


def _are_values(texts: set[str]) -> bool:
    """Whether texts are numbers or dates, as names of columns are not."""
    given = [text for text in texts if text]
    numbers = sum(number_of(text) is not None for text in given)
    if given and numbers >= 0.9 * len(given):
        return True
    column = pd.Series(given, dtype=object)
    return bool(given) and not TimeReading.of([column]).parse(column).faulty.any()
