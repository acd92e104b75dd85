"""Raw features in Arrow columns as the dense arrays that a tower takes, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from towers.errors import DataError
from towers.packer import LARGEST_FLOAT, missing_marker

Mask = NDArray[np.bool_]
Packed = dict[str, NDArray[Any]]


def pack_table(
    table: pa.Table, *, inputs: Mapping[str, tuple[Any, int]], id_column: str
) -> tuple[Packed, Mask, Mask]:
    """Turn the columns of a table that a tower reads into dense arrays, as `towers.packer.pack`.

    Args:
        table: columns by the features' names; those that are not there are missing.
        inputs: NumPy type and rank of each feature, as `Tower.inputs`.
        id_column: the one that says nothing about a row that is unknown.

    Returns:
        The arrays, [n] or padded [n, longest]; which rows [n] give any value but the id; and which
        give a number that is none of 32 bits.

    Raises:
        DataError: a column is of a type that its feature cannot have.
    """
    size = table.num_rows
    given, faulty = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    packed = {}
    for name, (dtype, rank) in inputs.items():
        if name not in table.column_names:
            shape = (size,) if rank == 1 else (size, 0)
            packed[name] = np.full(shape, missing_marker(dtype), dtype=dtype)
            continue
        column = plain(table[name])
        if rank == 1:
            packed[name], bad = _values(name, column, dtype)
        else:
            packed[name], bad = _lists(name, column, dtype)
        faulty |= bad
        if name != id_column:
            given |= _is_given(packed[name])
    return packed, given, faulty


def plain(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, not encoded by a dictionary."""
    array = column.combine_chunks()
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def list_lengths(name: str, array: pa.Array) -> NDArray[np.int64]:
    """The length of each list [n]; 0 for one that is missing.

    Raises:
        DataError: the column has no lists.
    """
    if pa.types.is_null(array.type):
        return np.zeros(len(array), dtype=np.int64)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(array.type) for is_kind in kinds):
        raise _wrong_type(name, array, "lists")
    lengths: NDArray[np.int64] = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    return lengths.astype(np.int64)


def list_values(array: pa.Array) -> pa.Array:
    """The values of all lists, one list after another."""
    values = array if pa.types.is_null(array.type) else pc.list_flatten(array)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def tokens(name: str, array: pa.Array, dtype: Any) -> NDArray[Any]:
    """Tokens [n] as int64 or str objects; missing markers for nulls.

    Raises:
        DataError: the column is of another type.
    """
    found = _integers(name, array) if dtype is np.int64 else _texts(name, array)
    filled: NDArray[Any] = pc.fill_null(found, missing_marker(dtype)).to_numpy(zero_copy_only=False)
    return filled


def _is_given(values: NDArray[Any]) -> Mask:
    """Which rows [n] have any value that is not missing."""
    marker = missing_marker(values.dtype)
    is_there = ~np.isnan(values) if values.dtype.kind == "f" else values != marker
    found: Mask = is_there.any(axis=tuple(range(1, values.ndim)))
    return found


def _lists(name: str, array: pa.Array, dtype: Any) -> tuple[NDArray[Any], Mask]:
    """Pad lists to the longest; and which of them hold a faulty number."""
    lengths = list_lengths(name, array)
    values, bad = _values(name, list_values(array), dtype)
    if pa.types.is_null(array.type):
        values, bad = values[:0], bad[:0]
    padded = np.full((len(array), lengths.max(initial=0)), missing_marker(dtype), dtype=dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, np.newaxis]] = values
    faulty = np.zeros(len(array), dtype=np.bool_)
    faulty[np.repeat(np.arange(len(array)), lengths)[bad]] = True
    return padded, faulty


def _values(name: str, array: pa.Array, dtype: Any) -> tuple[NDArray[Any], Mask]:
    """Fill one dense array; and which of its values are numbers beyond those of 32 bits."""
    if dtype is not np.float32:
        return tokens(name, array, dtype), np.zeros(len(array), dtype=np.bool_)
    if not (_is_number(array.type) or pa.types.is_null(array.type)):
        raise _wrong_type(name, array, "numbers")
    numbers = pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False)
    faulty: Mask = np.abs(numbers) > LARGEST_FLOAT
    return np.where(faulty, np.nan, numbers).astype(np.float32), faulty


def _integers(name: str, array: pa.Array) -> pa.Array:
    """Whole numbers as int64; NaN is a null."""
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    elif not (pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise _wrong_type(name, array, "integers, as in training")
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {name!r}: expected integers of 64 bits, as in training, received {error}"
        ) from None


def _texts(name: str, array: pa.Array) -> pa.Array:
    """Text; numbers and booleans as the columns of a training table are written."""
    kind = array.type
    if pa.types.is_floating(kind):
        texts = [None if x is None or x != x else str(x) for x in array.to_pylist()]  # noqa: PLR0124
        return pa.array(texts, pa.string())
    kinds = ("string", "large_string", "integer", "boolean", "null")
    if not any(getattr(pa.types, f"is_{known}")(kind) for known in kinds):
        raise _wrong_type(name, array, "text")
    return pc.cast(array, pa.string())


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _wrong_type(name: str, array: pa.Array, expected: str) -> DataError:
    return DataError(
        f"column {name!r}: expected {expected}, received {array.type}; convert the column"
    )
