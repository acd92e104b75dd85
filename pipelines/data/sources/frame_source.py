"""A DataFrame, a polars frame or an Arrow table as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pandas as pd
import pyarrow as pa

from pipelines.data.sources.arrow import to_frame
from pipelines.data.sources.source import Rows, Shard, Source, check_unique
from pipelines.table_config import FileFormat
from towers.errors import ConfigError, DataError


class ArrowStream(Protocol):
    """What gives its columns through Arrow's C stream interface, such as a polars frame."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the rows as a stream of Arrow."""
        ...


Frame: TypeAlias = pd.DataFrame | pa.Table | ArrowStream
"""A table in memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSource(Source):
    """Rows that are in memory; their numbers are positions, as `iloc` counts."""

    frame: pd.DataFrame
    """With row positions 0, 1, ... as its index."""

    @classmethod
    def of(cls, frame: Frame, *, name: str, table: FileFormat | None = None) -> FrameSource:
        """Take a table in memory, in the format of `table`; it stays as it is.

        Raises:
            ConfigError: it is none.
            DataError: a column occurs twice.
        """
        values = _to_pandas(frame, name=name)
        return cls(
            name=name,
            where=f"{name} ({name}.iloc)",
            typed=True,
            columns=tuple(values.columns),
            n_rows=len(values),
            null_values=frozenset(() if table is None else table.null_values),
            frame=values,
        )

    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Give some columns of the rows from a position up to another; see `Source.read`."""
        frame = self.frame if columns is None else self.frame[list(dict.fromkeys(columns))]
        return Rows(
            name=self.name,
            where=self.where,
            frame=frame.iloc[start:stop].reset_index(drop=True),
            typed=True,
            shards=(Shard(file=f"{self.name}.iloc", rows=range(start, stop)),),
            null_values=self.null_values,
        )


def _to_pandas(frame: Frame, *, name: str) -> pd.DataFrame:
    """Give a table in memory as a DataFrame of plain columns."""
    if isinstance(frame, pd.DataFrame):
        check_unique(list(frame.columns), where=f"{name} DataFrame")
        plain = {column: _plain(values) for column, values in frame.items()}
        return pd.DataFrame(plain, index=frame.index, copy=False).reset_index(drop=True)
    if isinstance(frame, pa.Table) or hasattr(frame, "__arrow_c_stream__"):
        try:
            to_arrow = getattr(frame, "to_arrow", None)  # what polars gives here has older types
            table = pa.table(frame if to_arrow is None else to_arrow())
        except pa.ArrowException as error:
            raise DataError(
                f"{name}: expected columns of types that Arrow knows, received {error}; convert "
                "or leave out the column"
            ) from None
        check_unique(table.column_names, where=f"{name} table")
        return to_frame(table)
    raise ConfigError(
        f"{name}: expected a DataFrame of pandas or polars, or an Arrow table, received "
        f"{type(frame).__name__}; convert it"
    )


def _plain(column: pd.Series) -> pd.Series:
    """Give a column as NumPy values or objects: how it is stored means nothing."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(column.to_numpy(), index=column.index)
    if isinstance(dtype, pd.CategoricalDtype):
        return column.astype(object).infer_objects()
    if isinstance(dtype, pd.PeriodDtype):
        return pd.Series(pd.PeriodIndex(column).to_timestamp(), index=column.index)
    if isinstance(dtype, pd.IntervalDtype):
        return column.astype(str)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and not isinstance(
        dtype, pd.DatetimeTZDtype
    ):
        values = to_frame(pa.table({"values": pa.chunked_array(pa.array(column))}))["values"]
        return values.set_axis(column.index)
    return column
