"""Read one file of JSON lines in batches, with the line number of each row.

A line is one object, and its keys are columns; those of an object within it follow its name and a
point, as in `user.id`. A column has the type that all of its values have,
over all files of the table; where they have several, it is text. No line is dropped: those that are
no objects are kept apart with their number, and empty ones are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from pipelines.data.sources.csv_file import LINE
from pipelines.data.sources.source import MalformedLine
from pipelines.data.sources.stream import read_lines
from pipelines.table_config import FileFormat
from towers.errors import DataError
from towers.features.values import INT64

BATCH = 16_384
"""Lines that are turned into columns at a time."""
REASON = "no JSON object"
MOST_KEYS = 200
"""An object with more keys over all rows is a map rather than columns, and stays one value."""


@dataclass(eq=False)
class Kinds:
    """The types of Python's of a column's values."""

    single: set[type] = field(default_factory=set)
    """Of single values, without None; an integer of more than 64 bits is a float."""
    listed: set[type] = field(default_factory=set)
    """Of the values in lists."""
    has_lists: bool = False
    keys: set[str] = field(default_factory=set)
    """Of objects, the keys."""

    def add(self, value: Any) -> None:
        """Take note of a value."""
        if isinstance(value, list):
            self.has_lists = True
            self.listed.update(map(_kind, value))
        elif value is not None:
            self.single.add(_kind(value))

    def merge(self, other: Kinds) -> None:
        """Take note of the values of the same column in another file."""
        self.single |= other.single
        self.listed |= other.listed
        self.keys |= other.keys
        self.has_lists |= other.has_lists

    @property
    def is_value(self) -> bool:
        """Whether objects, if there are some, stay whole: where other values stand, too."""
        return bool(self.single or self.has_lists or len(self.keys) > MOST_KEYS)

    @property
    def type(self) -> pa.DataType:
        """The one type of the column; a single value among lists is a list of one."""
        kinds = (self.single | self.listed) - {type(None)}
        return pa.list_(_type(kinds)) if self.has_lists else _type(kinds)


class JsonFile:
    """A file of JSON lines; the tallies are complete once it is made."""

    def __init__(self, path: Path, source: FileFormat) -> None:
        """Read the file once, to see which columns there are, and of which types.

        Raises:
            ConfigError: there is no such encoding.
            DataError: the file cannot be read, or most of its lines are no JSON objects.
        """
        self.path = path
        self.encoding = source.encoding
        self.malformed: list[MalformedLine] = []
        self.empty_lines = 0
        self.n_rows = 0
        self.kinds: dict[str, Kinds] = {}
        for number, line in read_lines(path, self.encoding):
            self._scan(number, line)
        if len(self.malformed) > self.n_rows:
            raise DataError(_explain(self.path, self.malformed[0]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns, in order of first occurrence."""
        return tuple(schema_of([self]).names)

    def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Read the rows in the columns of `schema`, and `LINE`; null where a key is absent."""
        whole = frozenset(schema.names)
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        for number, line in read_lines(self.path, self.encoding):
            row = _parse(line)
            if row is None:
                continue
            rows.append(dict(_flat(row, whole)))
            lines.append(number)
            if len(rows) == BATCH:
                yield _table(rows, lines, schema)
                rows, lines = [], []
        yield _table(rows, lines, schema)

    def _scan(self, number: int, line: bytes) -> None:
        """Take note of a line's columns."""
        if not line.strip():
            self.empty_lines += 1
            return
        row = _parse(line)
        if row is None:
            text = line.decode("utf-8", "replace")
            self.malformed.append(
                MalformedLine(file=str(self.path), row=number, text=text, reason=REASON)
            )
            return
        self.n_rows += 1
        self._note(row)

    def _note(self, row: Mapping[str, Any], prefix: str = "") -> None:
        """Take note of the values of an object, and of those of objects within it."""
        for key, value in row.items():
            name = prefix + key
            if name not in self.kinds:
                self.kinds[name] = Kinds()
            kinds = self.kinds[name]
            if not isinstance(value, dict):
                kinds.add(value)
            elif len(kinds.keys) <= MOST_KEYS:  # else it is a map, however many there are
                kinds.keys.update(value)
                self._note(value, f"{name}.")


def schema_of(files: Sequence[JsonFile]) -> pa.Schema:
    """The columns of the files of a table, each of the type that holds the values of all."""
    merged: dict[str, Kinds] = {}
    for file in files:
        for name, kinds in file.kinds.items():
            merged.setdefault(name, Kinds()).merge(kinds)
    whole = {name for name, kinds in merged.items() if kinds.keys and kinds.is_value}
    return pa.schema(
        [
            (name, pa.string() if name in whole and not kinds.has_lists else kinds.type)
            for name, kinds in merged.items()
            if (kinds.is_value or not kinds.keys)
            and not any(name.startswith(f"{outer}.") for outer in whole)
        ]
    )


def _flat(
    row: Mapping[str, Any], whole: frozenset[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Give the values of an object by column; objects that are none of the columns are divided."""
    for key, value in row.items():
        name = prefix + key
        if isinstance(value, dict) and name not in whole:
            yield from _flat(value, whole, f"{name}.")
        else:
            yield name, value


def _parse(line: bytes) -> dict[str, Any] | None:
    """Read an object; None for anything else. NaN and Infinity, which Python writes, are read."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line)
        except ValueError:
            return None
    return row if isinstance(row, dict) else None


def _kind(value: Any) -> type:
    """The type of a value, as far as a column's type depends on it."""
    if type(value) is int and not INT64.min <= value <= INT64.max:
        return float
    return type(value)


def _type(kinds: set[type]) -> pa.DataType:
    """The type of values of these types; text for several."""
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def _table(rows: list[dict[str, Any]], lines: list[int], schema: pa.Schema) -> pa.Table:
    """Put objects into columns."""
    columns = [_array([row.get(one.name) for row in rows], one.type) for one in schema]
    fields = [*schema, pa.field(LINE, pa.int64())]
    return pa.table([*columns, pa.array(lines, pa.int64())], schema=pa.schema(fields))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Give values the type of their column."""
    if pa.types.is_list(kind):
        cells = [value if isinstance(value, list) or value is None else [value] for value in values]
        if pa.types.is_string(kind.value_type):
            cells = [cell and [_text(value) for value in cell] for cell in cells]
        return pa.array(cells, kind)
    if pa.types.is_string(kind):
        values = [_text(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _text(value: Any) -> str | None:
    """Write a value as text: an object, or one of a column of several types, as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _explain(path: Path, line: MalformedLine) -> str:
    """Say what a file holds in place of JSON lines."""
    remedy = "check that it is JSON lines"
    if line.text.lstrip()[:1] in {"[", "{"}:
        remedy = (
            "write each object as one line of JSON, without an array around them: "
            "jq -c '.[]' FILE > FILE.jsonl"
        )
    return (
        f"{path}: expected one JSON object a line, but most lines are none, such as line "
        f"{line.row}: {line.text[:80]!r}; {remedy}"
    )
