"""Frames as Parquet."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from towers.errors import DataError


def to_arrow(frame: pd.DataFrame, *, name: str) -> pa.Table:
    """Give each column of a table the one type that Parquet needs.

    Raises:
        DataError: a column has values of several types.
    """
    try:
        return pa.Table.from_pandas(frame)
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: expected values of one type in each column, received a column that Parquet "
            f"cannot hold: {'; '.join(map(str, error.args))}; convert it, or leave it out"
        ) from None
