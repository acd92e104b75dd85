"""Frames as Parquet."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from towers.errors import DataError


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


def _is_held(column: pd.Series) -> bool:
    """Whether Parquet can hold a column."""
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return False
    return True
