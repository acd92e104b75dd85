"""The digest of a DataFrame, by which a run knows its input again."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_list_like
from pandas.util import hash_pandas_object


def digest(frame: pd.DataFrame) -> str:
    """The sha256 (hex) of the columns' names, types and values, in their order; not of the index.

    Values are hashed by pandas, a column at a time, and never written as text all at once.
    """
    total = hashlib.sha256(str(frame.shape).encode())
    for number, name in enumerate(frame.columns):
        column = frame.iloc[:, number].reset_index(drop=True)
        kind = infer_dtype(column, skipna=False)
        total.update(repr((name, str(column.dtype), kind)).encode())
        _add(total, column, kind)
    return total.hexdigest()


def _add(total: Any, column: pd.Series[Any], kind: str) -> None:
    """Add the values of a column, whose rows are numbered from 0."""
    if kind.startswith("mixed"):
        is_list = column.map(is_list_like)
        if is_list.any():
            sizes = column.where(is_list).map(len, na_action="ignore").fillna(-1)
            total.update(sizes.to_numpy(np.int64).tobytes())
            column = column.explode(ignore_index=True)
        kinds = column.map(lambda value: type(value).__name__)
        total.update(hash_pandas_object(kinds, index=False).to_numpy().tobytes())
    total.update(hash_pandas_object(column, index=False).to_numpy().tobytes())
