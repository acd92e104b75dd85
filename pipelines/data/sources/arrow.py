"""Arrow tables as pandas frames, in which no value is narrowed."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Give a table as a frame: integers with nulls as objects, dictionaries as their values.

    Binary columns, as some engines write text, become text where they are UTF-8.
    """
    columns = [_as_values(column) for column in table.columns]
    frame: pd.DataFrame = pa.table(columns, names=table.column_names).to_pandas(
        ignore_metadata=True, integer_object_nulls=True
    )
    return frame


def _as_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode a column that is stored as a dictionary, or as bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowInvalid:
            return column  # bytes, which are at fault where a text belongs
    return column
