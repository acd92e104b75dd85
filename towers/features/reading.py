"""Reading: columns of raw values as tokens, ids or numbers, whatever holds them.

One function for each kind of feature. Each takes a column as a list, or as NumPy, pandas or Arrow
have it, and says of each value what it is, and whether it cannot be read. What one value is,
`towers.features.values` says; columns of one type take a faster way to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from towers.features.number_form import NumberForm
from towers.features.values import (
    INT64,
    MISSING_INTEGER,
    MISSING_STRING,
    ODD,
    integer_of,
    is_missing,
    missing_marker,
    number_of,
    text_of,
)

_SIMPLE = (
    types.is_string,
    types.is_large_string,
    types.is_boolean,
    types.is_integer,
    types.is_float32,
    types.is_float64,
    types.is_decimal,
    types.is_date,
    types.is_timestamp,
    types.is_null,
)

Mask = NDArray[np.bool_]
Column: TypeAlias = "Sequence[Any] | NDArray[Any] | pd.Series[Any] | pa.Array | pa.ChunkedArray"
Kind = Literal["integer", "text"]

LARGEST_FLOAT = float(np.finfo(np.float32).max)
"""Towers compute in 32 bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """What the values of a column are, [n]."""

    values: NDArray[Any]
    """int64, str objects or float64; a missing marker also for what cannot be read."""
    faulty: Mask
    """The values that were given but cannot be read; never a missing one."""

    @property
    def missing(self) -> Mask:
        """The values that were not given."""
        return is_marker(self.values) & ~self.faulty


def is_marker(values: NDArray[Any]) -> Mask:
    """Which values that were read stand for nothing."""
    marker = missing_marker(values.dtype)
    found: Mask = np.isnan(values) if values.dtype.kind == "f" else values == marker
    return found


def token_kind(column: Column) -> Kind:
    """Decide what the tokens of a whole column are: integers, or else text.

    They are integers if every value that is given is a whole number of 64 bits, however written.
    """
    integers = read_tokens(column, "integer")
    return "text" if integers.faulty.any() or integers.missing.all() else "integer"


def read_tokens(column: Column, kind: Kind) -> Read:
    """Read tokens, as int64 or as str objects."""
    plain = _plain(column, kind, each=text_of if kind == "text" else None)
    if plain is not None:
        return _all_read(plain)
    array = simple_array(column)
    if array is None:
        return _one_by_one(column, integer_of if kind == "integer" else text_of, kind)
    if kind == "integer":
        return _integers(array)
    return _all_read(pc.fill_null(_texts(array), MISSING_STRING).to_numpy(zero_copy_only=False))


def read_ids(column: Column, kind: Kind) -> Read:
    """Read ids, as int64 or as str objects: exactly as they are, so that no two become one.

    Whole floats are integers as long as their type can tell them from their neighbours.
    """
    plain = _plain(column, kind)
    if plain is not None:
        return _all_read(plain)
    array = None if isinstance(column, list) else simple_array(column)
    if array is None:
        return _one_by_one(column, _integer_id if kind == "integer" else _text_id, kind)
    is_text = types.is_string(array.type) or types.is_large_string(array.type)
    if is_text and kind == "text":
        return _all_read(pc.fill_null(array, MISSING_STRING).to_numpy(zero_copy_only=False))
    if types.is_integer(array.type) or types.is_null(array.type):
        return read_tokens(array, kind)
    if types.is_floating(array.type) and kind == "integer":
        read = _integers(array)
        too_large = np.abs(read.values) >= _exact_below(array.type)
        faulty = read.faulty | (too_large & ~read.missing)
        return Read(values=np.where(faulty, MISSING_INTEGER, read.values), faulty=faulty)
    given = array.is_valid().to_numpy(zero_copy_only=False)
    dtype = np.int64 if kind == "integer" else object
    return Read(values=np.full(len(array), missing_marker(dtype), dtype=dtype), faulty=given)


def read_numbers(
    column: Column, *, largest: float = LARGEST_FLOAT, form: NumberForm | None = None
) -> Read:
    """Read numbers as float64, missing ones as NaN; one beyond `largest` cannot be read.

    With a form, texts that are no plain numbers are read as it says.
    """
    values: NDArray[np.float64] | None = None
    if isinstance(column, list):
        values = _plain(column, "number")
    elif (array := simple_array(column)) is not None:
        values = _arrow_floats(array)
    if values is None:
        read = _one_by_one(column, number_of if form is None else form.read, "number")
        values, faulty = read.values, read.faulty
    else:
        faulty = np.isinf(values)
    faulty = faulty | (np.abs(values) > largest)
    if faulty.any():
        values = np.where(faulty, np.nan, values)
    return Read(values=values, faulty=faulty)


def simple_array(column: Column) -> pa.Array | None:
    """A column of single values of one type; None where they must be looked at one by one."""
    array = as_arrow(column)
    return array if array is not None and _is_simple(array.type) else None


def as_arrow(column: Column) -> pa.Array | None:
    """Bring a column to Arrow, as plain values; None if it has no type there."""
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        if not _is_of_one_type(column):
            return None
        try:
            column = pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return None
    elif types.is_binary(column.type) or types.is_large_binary(column.type):
        column = _decoded(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_string()) if types.is_string_view(column.type) else column


def _decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Text that some engines write as bytes; other bytes stay so."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        return column


def _is_of_one_type(column: Column) -> bool:
    """Whether Arrow can be trusted with a column's values: it makes dates of a date and a time."""
    if isinstance(column, np.ndarray | pd.Series):
        if column.dtype != object:
            return True
        column = np.asarray(column)
    kinds = {*map(type, column)} - {type(None), type(pd.NA), type(pd.NaT)}
    is_one = len(kinds) <= 1 or kinds <= {int, float} or kinds == {str, float}
    return is_one and not any(issubclass(kind, datetime) for kind in kinds)


def _is_simple(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _SIMPLE)


def listed(column: Column) -> list[Any]:
    """Python's own values, where there are such."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        listed: list[Any] = column.to_pylist()
        return listed
    return column.tolist() if isinstance(column, np.ndarray | pd.Series) else list(column)


def _one_by_one(
    column: Column, read: Callable[[Any], Any], kind: Literal["integer", "text", "number"]
) -> Read:
    """Read values that may be of several types; `read` answers None for a faulty one."""
    dtype, _ = _PLAIN[kind]
    found = [read(value) for value in listed(column)]
    faulty = np.array([one is None for one in found], dtype=np.bool_)
    marker = missing_marker(dtype)
    values = np.array([marker if one is None else one for one in found], dtype=dtype)
    return Read(values=values, faulty=faulty)


_PLAIN: dict[str, tuple[Any, set[type]]] = {
    "integer": (np.int64, {int}),
    "text": (object, {str}),
    "number": (np.float64, {float, int}),
}
"""By what is read, its type in NumPy, and the types of Python's that need no look at each value."""


def _plain(
    column: Column,
    kind: Literal["integer", "text", "number"],
    *,
    each: Callable[[Any], Any] | None = None,
) -> NDArray[Any] | None:
    """The values of a list that are all of such a type, or None; None if they are not.

    `each` is done to each of them.
    """
    if not isinstance(column, list):
        return None
    dtype, plain = _PLAIN[kind]
    kinds = {*map(type, column)}
    if not kinds <= plain | {type(None)}:
        return None
    if each is not None:
        column = [each(value) for value in column]
    elif type(None) in kinds:
        marker = missing_marker(dtype)
        column = [marker if value is None else value for value in column]
    try:
        return np.array(column, dtype=dtype)
    except OverflowError:  # beyond 64 bits
        return None


def _all_read(values: NDArray[Any]) -> Read:
    return Read(values=values, faulty=np.zeros(len(values), dtype=np.bool_))


def _arrow_floats(array: pa.Array) -> NDArray[np.float64] | None:
    """Cast to numbers; None where that needs a look at each value."""
    if types.is_date(array.type) or types.is_timestamp(array.type):
        return None
    if types.is_string(array.type) or types.is_large_string(array.type):
        array = _without_empty(array)
    try:
        values = pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return None
    floats: NDArray[np.float64] = values.astype(np.float64)
    return floats


def _integers(array: pa.Array) -> Read:
    """Read the whole numbers of 64 bits among simple values."""
    if types.is_floating(array.type):
        return _whole(array.to_numpy(zero_copy_only=False).astype(np.float64))
    if not types.is_integer(array.type):
        array = _texts(array)
        is_integer = pc.match_substring_regex(array, r"^(?:0|-?[1-9][0-9]{0,18})$")
        given = array.is_valid()
        faulty = pc.and_(given, pc.invert(pc.fill_null(is_integer, False)))
        array = pc.if_else(faulty, pa.scalar(None, array.type), array)
    else:
        faulty = pa.array(np.zeros(len(array), dtype=np.bool_))
    try:
        integers = pc.fill_null(pc.cast(array, pa.int64()), MISSING_INTEGER).to_numpy()
    except pa.ArrowException:  # a number of more than 64 bits
        return _one_by_one(array, integer_of, "integer")
    return Read(values=integers, faulty=faulty.to_numpy(zero_copy_only=False))


def _whole(values: NDArray[np.float64]) -> Read:
    """Read whole numbers of 64 bits among floats."""
    fits = (np.abs(values) < -float(INT64.min)) & (np.trunc(values) == values)
    integers = np.full(len(values), MISSING_INTEGER, dtype=np.int64)
    integers[fits] = values[fits].astype(np.int64)
    return Read(values=integers, faulty=~fits & ~np.isnan(values))


def _texts(array: pa.Array) -> pa.Array:
    """Write simple values as tokens, null where there is none."""
    kind = array.type
    if types.is_string(kind) or types.is_large_string(kind):
        array = _without_empty(array)
        odd = pc.fill_null(pc.match_substring_regex(array, f"^(?:{ODD})$"), False)
        if not pc.any(odd).as_py():
            return array
        return pc.replace_with_mask(array, odd, _each_text(array.filter(odd)).cast(kind))
    if types.is_floating(kind):
        read = _integers(array)
        if not read.faulty.any():
            integers = pa.array(read.values, mask=read.missing)
            return integers.cast(pa.string())
        return _each_text(array)
    if types.is_decimal(kind) or types.is_timestamp(kind) or types.is_date64(kind):
        return _each_text(array)
    return pc.cast(array, pa.string())


def _each_text(array: pa.Array) -> pa.Array:
    """Write each different value as a token, null where there is none."""
    encoded = array.dictionary_encode()
    values = encoded.dictionary
    listed = (
        list(values.to_numpy(zero_copy_only=False))
        if types.is_floating(values.type)
        else values.to_pylist()
    )
    texts = [text_of(value) or None for value in listed]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _without_empty(texts: pa.Array) -> pa.Array:
    """Put nulls for empty texts."""
    is_empty = pc.equal(texts, "")
    if not pc.any(is_empty).as_py():
        return texts
    return pc.if_else(is_empty, pa.scalar(None, texts.type), texts)


def _integer_id(value: Any) -> int | None:
    if is_missing(value):
        return MISSING_INTEGER
    if isinstance(value, float | np.floating):
        digits = int(np.finfo(type(value)).nmant) + 1
        return int(value) if value == np.trunc(value) and abs(value) < 2**digits else None
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return int(value) if is_integer and INT64.min <= value <= INT64.max else None


def _text_id(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return MISSING_STRING
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return str(value) if is_integer else None


def _exact_below(kind: pa.DataType) -> int:
    """Up to where a type of floats tells integers from their neighbours."""
    return int(2 ** (np.finfo(kind.to_pandas_dtype()).nmant + 1))
