"""The fields of a collection in Milvus: the id, the vector, and the columns that filters ask for.

A column of booleans, integers, floats or text is a field of that type, with a second one,
`NAME_known`, that says where there is a value; a column of lists of integers or text is an array. A
missing list is an empty one, which matches as little. Other columns, and those with a value that
Milvus cannot hold, have no field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.search.index import Vectors
from serving.version.embeddings import VECTOR, Embeddings
from towers.features.values import INT64

LONGEST_TEXT = 65_535
"""Bytes of a text in Milvus at most."""

LONGEST_LIST = 4096
"""Elements of an array in Milvus at most."""

MOST_FIELDS = 64
"""Fields of a collection in Milvus at most."""

EMPTY: dict[str, Any] = {"bool": False, "int": 0, "float": 0.0, "text": ""}
"""What stands where there is no value."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_TAKEN = {"and", "or", "not", "in", "like", "exists", "true", "false", "is", "null", "count"}
_FUNCTIONS = ("array_", "json_", "st_", "text_", "phrase_", "random_")


@dataclass(frozen=True)
class ColumnField:
    """A column of the table, and its field."""

    column: str
    name: str
    """Of the field: the column's, where Milvus allows that."""
    kind: str
    """bool, int, float or text: of the value or, in a list, of each."""
    type: pa.DataType
    """Of the value or, in a list, of each; as in the table."""
    is_list: bool = False
    is_id: bool = False

    @property
    def known(self) -> str | None:
        """The field that says where there is a value; None where an array or the id has none."""
        return None if self.is_list or self.is_id else f"{self.name}_known"

    def holds(self, values: pa.Array) -> bool:
        """Whether Milvus can hold all of these values of the column."""
        if self.is_list:
            longest = pc.max(pc.list_value_length(values)).as_py() or 0
            values = pc.list_flatten(values)
            if longest > LONGEST_LIST:
                return False
        if self.kind == "text":
            return (pc.max(pc.binary_length(values)).as_py() or 0) <= LONGEST_TEXT
        if self.kind == "float":
            return bool(pc.all(pc.is_finite(values.cast(pa.float64()))).as_py() in {True, None})
        return self.kind != "int" or (pc.max(values).as_py() or 0) <= INT64.max


def id_field(published: Embeddings) -> ColumnField:
    """The field of the id, by which Milvus knows a user or an item."""
    kind = "int" if published.ids.dtype == np.int64 else "text"
    type = pa.int64() if kind == "int" else pa.string()
    return ColumnField(
        published.id_column, _named(published.id_column, 0, {VECTOR}), kind, type, is_id=True
    )


def column_fields(published: Embeddings) -> list[ColumnField]:
    """The fields that the types of a table's columns allow, the id's first."""
    first = id_field(published)
    fields, room = [first], MOST_FIELDS - 2
    names = {first.name, VECTOR}
    for number, column in enumerate(published.columns[1:], start=1):
        type = published.column(column).type
        is_list = pa.types.is_list(type) or pa.types.is_large_list(type)
        value_type = type.value_type if is_list else type
        kind = _kind_of(value_type)
        if kind is None or (is_list and kind not in {"int", "text"}):
            continue
        field = ColumnField(column, _named(column, number, names), kind, value_type, is_list)
        own = {field.name, field.known} - {None}
        if len(own) > room:
            continue
        room -= len(own)
        names |= {name for name in own if name}
        fields.append(field)
    return fields


def entities(
    fields: Sequence[ColumnField],
    ids: NDArray[Any],
    vectors: Vectors,
    *,
    column: Callable[[str], pa.Array],
) -> list[dict[str, Any]]:
    """Make what pymilvus writes: a dictionary for each of n users or items.

    Args:
        fields: the fields, the id's first.
        ids: [n].
        vectors: [n, width] float32.
        column: answers the n values of a column.
    """
    values: dict[str, Iterable[Any]] = {fields[0].name: ids.tolist(), VECTOR: vectors}
    for field in fields[1:]:
        given = column(field.column).to_pylist()
        if field.is_list:
            values[field.name] = [[x for x in many or () if x is not None] for many in given]
            continue
        values[field.name] = [EMPTY[field.kind] if x is None else x for x in given]
        values[f"{field.name}_known"] = [x is not None for x in given]
    names = list(values)
    return [dict(zip(names, each, strict=True)) for each in zip(*values.values(), strict=True)]


def _kind_of(type: pa.DataType) -> str | None:
    """What Milvus calls for; None where it has nothing like it."""
    if pa.types.is_boolean(type):
        return "bool"
    if pa.types.is_integer(type):
        return "int"
    if pa.types.is_floating(type):
        return "float"
    return "text" if pa.types.is_string(type) or pa.types.is_large_string(type) else None


def _named(column: str, number: int, taken: set[str]) -> str:
    """The column's own name if Milvus and the other fields allow it, and `column_NUMBER` if not."""
    lower = column.lower()
    fits = _PLAIN.fullmatch(column) and lower not in _TAKEN and not lower.startswith(_FUNCTIONS)
    free = not {column, f"{column}_known"} & taken and not re.fullmatch(r"column_\d+.*", lower)
    return column if fits and free else f"column_{number}"
