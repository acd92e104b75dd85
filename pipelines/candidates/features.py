"""Raw features and ids in Arrow columns, a whole batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from towers.errors import DataError
from towers.features.lists import cut_lists
from towers.features.packer import EXPECTED, Input, Packed, read_inputs
from towers.features.reading import Column, Kind, Mask, is_marker, read_ids

TEXT = (
    types.is_string,
    types.is_large_string,
    types.is_string_view,
    types.is_binary,
    types.is_large_binary,
)
"""Types of text columns; some engines write text as bytes."""


def check_types(
    schema: pa.Schema, *, inputs: Mapping[str, Input], columns: Mapping[str, str]
) -> None:
    """Refuse a table with a column whose type its feature can never have.

    Args:
        schema: the table's.
        inputs: of the tower, by name.
        columns: the column of each input.

    Raises:
        DataError: there is one.
    """
    for name, input in inputs.items():
        if columns.get(name) in schema.names:
            kind = schema.field(columns[name]).type
            if not _can_hold(kind, input):
                expected = "lists" if input.rank > 1 else EXPECTED[input.dtype]
                raise wrong_type(columns[name], kind, expected)


def pack_table(
    table: pa.Table,
    *,
    inputs: Mapping[str, Input],
    columns: Mapping[str, str],
    id_input: str | None,
) -> tuple[Packed, Mask, Mask]:
    """Turn the columns of a table that a tower reads into dense arrays, as `packer.pack` does.

    Args:
        table: columns that are not there are missing.
        inputs: of the tower, by name.
        columns: the column of each input.
        id_input: the one that says nothing about a row that is unknown.

    Returns:
        The arrays, [n] or padded [n, longest]; which rows [n] give any value but the id; and which
        give one that cannot be read.
    """
    size = table.num_rows
    given = {
        name: table[column]
        for name, column in columns.items()
        if name in inputs and column in table.column_names
    }
    packed, unreadable = read_inputs(given, inputs=inputs, size=size)
    is_given, faulty = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    for name, mask in unreadable.items():
        faulty |= mask
        if name != id_input:
            values = packed[name]
            is_given |= mask | ~is_marker(values).all(axis=tuple(range(1, values.ndim)))
    return packed, is_given, faulty


def without_null_texts(table: pa.Table, null_values: frozenset[str]) -> pa.Table:
    """Put nulls for the texts that mean a missing value."""
    if not null_values:
        return table
    texts = pa.array(sorted(null_values))
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        if types.is_string(column.type) or types.is_large_string(column.type):
            is_null = pc.is_in(column, value_set=texts.cast(column.type))
            column = pc.if_else(is_null, pa.scalar(None, column.type), column)
            table = table.set_column(place, field.name, column)
    return table


def ids_of(name: str, values: Column, dtype: Any) -> NDArray[Any]:
    """Ids [n] as int64 or str objects; missing markers for nulls.

    Raises:
        DataError: one is of another type.
    """
    kind: Kind = "integer" if dtype == np.int64 else "text"
    read = read_ids(values, kind)
    if read.faulty.any():
        value = values[int(np.argmax(read.faulty))]
        raise DataError(
            f"column {name!r}: expected {'integers of 64 bits' if kind == 'integer' else 'text'}, "
            f"as in training, received {getattr(value, 'as_py', lambda: value)()!r}; convert the "
            "column"
        )
    return read.values


def id_lists(
    name: str, column: pa.ChunkedArray, dtype: Any
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids of all lists, one list after another, and the length of each list [n].

    Raises:
        DataError: the column has no lists, or an id is of another type.
    """
    lists = cut_lists(column, None)
    if lists.faulty.any():
        raise wrong_type(name, column.type, "lists")
    return ids_of(name, lists.values, dtype), lists.lengths


def wrong_type(name: str, kind: pa.DataType, expected: str) -> DataError:
    """The error for a column of the wrong type."""
    return DataError(f"column {name!r}: expected {expected}, received {kind}; convert the column")


def _can_hold(kind: pa.DataType, input: Input) -> bool:
    """Whether a column of this type can hold values of an input."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_null(kind):
        return True
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_list or (input.is_id and input.rank > 1):
        element = dataclasses.replace(input, rank=1)
        return bool(is_list) and input.rank > 1 and _can_hold(kind.value_type, element)
    if types.is_nested(kind):
        return False
    is_text = any(is_kind(kind) for is_kind in TEXT)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if input.is_id:
        return bool(types.is_integer(kind) or (is_text if input.dtype is object else is_number))
    if input.dtype is np.float32:
        return bool(is_text or is_number or types.is_boolean(kind))
    return bool(input.dtype is object or is_text or is_number)
