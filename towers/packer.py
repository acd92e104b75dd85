"""Raw feature values as the dense arrays that the encoder and the SavedModels take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from towers.errors import QueryError
from towers.schema import History, MultiValued, Numeric, Schema, Side, space_of
from towers.vocabulary import MISSING_INTEGER, MISSING_STRING, Tokens, Vocabulary

INT64 = np.iinfo(np.int64)
PLAIN: Mapping[Any, set[type]] = {np.int64: {int}, object: {str}, np.float32: {float, int}}
"""By an input's type, the types of Python's that need no conversion one by one."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)


def input_dtypes(
    schema: Schema, vocabulary: Vocabulary, *, side: Side
) -> dict[str, tuple[Any, int]]:
    """List the inputs of one side: name -> (NumPy dtype, rank); rank 2 is [batch, length]."""
    inputs: dict[str, tuple[Any, int]] = {}
    for feature in schema.features(side):
        if isinstance(feature, Numeric):
            inputs[feature.name] = (np.float32, 1)
            continue
        space = vocabulary.spaces[space_of(feature, side=side, schema=schema)]
        integer = isinstance(space, Tokens) and space.is_integer
        rank = 2 if isinstance(feature, (MultiValued, History)) else 1
        inputs[feature.name] = (np.int64 if integer else object, rank)
        if isinstance(feature, MultiValued) and feature.weights is not None:
            inputs[feature.weights_name] = (np.float32, 2)
    return inputs


def pack(
    columns: Mapping[str, Sequence[Any] | pd.Series[Any]],
    *,
    inputs: Mapping[str, tuple[Any, int]],
    size: int,
) -> dict[str, NDArray[Any]]:
    """Turn `size` raw values a column into dense arrays, [size] or padded [size, longest].

    A column that is absent, or a value that is None or NaN, becomes the missing marker: `""`,
    the smallest int64, or NaN.

    Raises:
        QueryError: a column is unknown, or a value does not fit its type.
    """
    unknown = sorted(set(columns) - set(inputs))
    if unknown:
        raise QueryError(f"unknown features {unknown}; expected some of {sorted(inputs)}")
    packed = {}
    for name, (dtype, rank) in inputs.items():
        values = _listed(columns[name]) if name in columns else [None] * size
        if len(values) != size:
            raise QueryError(f"feature {name!r}: expected {size} values, received {len(values)}")
        pack_one = _pack_values if rank == 1 else _pack_lists
        packed[name] = pack_one(name, values, dtype)
    return packed


def _listed(values: Sequence[Any] | pd.Series[Any]) -> list[Any]:
    """Python's own values, where there are such."""
    return values.tolist() if isinstance(values, (np.ndarray, pd.Series)) else list(values)


def _pack_values(name: str, values: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Fill one dense array, missing markers included; values of one plain type all at once."""
    if {type(value) for value in values} <= PLAIN[dtype]:
        try:
            array = np.array(values, dtype=np.float64 if dtype is np.float32 else dtype)
        except OverflowError:
            array = None
        if array is not None and (dtype is not np.float32 or _fits_float(array)):
            return array.astype(dtype, copy=False)
    return np.array([_value(name, value, dtype) for value in values], dtype=dtype)


def _fits_float(values: NDArray[np.float64]) -> bool:
    """Whether no number is beyond those of 32 bits."""
    return not (np.abs(values) > LARGEST_FLOAT).any()


def _pack_lists(name: str, values: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Pad lists to the longest with missing markers at the end."""
    lists = [[] if _is_missing(value) else value for value in values]
    for value in lists:
        if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
            raise QueryError(f"feature {name!r}: expected a list, received {value!r}")
    lengths = np.array([len(value) for value in lists], dtype=np.int64)
    packed = np.full((len(lists), lengths.max(initial=0)), missing_marker(dtype), dtype=dtype)
    tokens = [token for value in lists for token in _listed(value)]
    packed[np.arange(packed.shape[1]) < lengths[:, np.newaxis]] = _pack_values(name, tokens, dtype)
    return packed


def _value(name: str, value: Any, dtype: Any) -> Any:
    """Check and convert one value to its input's type."""
    if _is_missing(value):
        return missing_marker(dtype)
    if dtype is object:
        return _text(name, value)
    integral = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if dtype is np.int64:
        if not integral or not INT64.min <= value <= INT64.max:
            raise QueryError(f"feature {name!r}: expected a 64-bit integer, received {value!r}")
        return value
    if not integral and not isinstance(value, (float, np.floating)):
        raise QueryError(f"feature {name!r}: expected a number, received {value!r}")
    if not abs(value) <= LARGEST_FLOAT:
        raise QueryError(f"feature {name!r}: expected a 32-bit float, received {value!r}")
    return value


def _text(name: str, value: Any) -> str:
    """Write a token as text, as the columns of a table are parsed."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, bytes) or not pd.api.types.is_scalar(value):
        raise QueryError(f"feature {name!r}: expected one token as text, received {value!r}")
    return str(value)


def _is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, or pandas' NA or NaT."""
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return value is None or value is pd.NA or value is pd.NaT


def missing_marker(dtype: Any) -> Any:
    """The marker of a missing value of this type."""
    kind = np.dtype(dtype).kind
    return {"O": MISSING_STRING, "i": MISSING_INTEGER, "f": np.nan}[kind]
