"""Arrow tables as pandas frames, in which no value is narrowed, and back."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from pyarrow import types

from towers.errors import DataError


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Give a table as a frame: integers with nulls as objects, dictionaries as their values.

    Binary columns, as some engines write text, become text where they are UTF-8.
    """
    columns = [_as_values(column) for column in table.columns]
    frame: pd.DataFrame = pa.table(columns, names=table.column_names).to_pandas(
        ignore_metadata=True, integer_object_nulls=True
    )
    return frame


def to_arrow(frame: pd.DataFrame, *, name: str) -> pa.Table:
    """Give each column of a table the one type that Parquet needs.

    Raises:
        DataError: a column has values of several types, or integers of more than 64 bits.
    """
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, OverflowError) as error:
        column = next(column for column in frame if not _is_held(frame[column]))
        raise DataError(
            f"{name}: expected values of one type in each column, received the column {column!r}, "
            f"which Parquet cannot hold: {error.args[0]}; convert it, or leave it out"
        ) from None


def _as_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode a column that is stored as a dictionary, as views, or as bytes."""
    plain = _plain(column.type)
    if plain != column.type:
        column = column.cast(plain)
    if types.is_binary(plain) or types.is_large_binary(plain):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid:
            return column  # bytes, which are at fault where a text belongs
    return column


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the same values, stored one after another."""
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        value = _plain(kind.value_type)
        return kind if value == kind.value_type else pa.large_list(value)
    return kind


def _is_held(column: pd.Series) -> bool:
    """Whether Parquet can hold a column."""
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return False
    return True
