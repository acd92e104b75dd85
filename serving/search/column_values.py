"""Values that come from outside, read as the columns of a version's tables have them."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types

from towers.features.reading import simple_array
from towers.features.values import (
    MISSING_INTEGER,
    NUMBER,
    TRUTH,
    integer_of,
    is_missing,
    number_of,
    text_of,
)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text."""
    return bool(types.is_string(kind) or types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return bool(types.is_list(kind) or types.is_large_list(kind))


def read_cell(value: Any, kind: pa.DataType) -> Any:
    """Read a value, or a list of values, as one of a column of this type; None if missing.

    Raises:
        ValueError: it is none.
    """
    if is_list(kind) and isinstance(value, list | tuple):
        return [read_cell(one, kind.value_type) for one in value]
    if value is None or (not isinstance(value, str) and is_missing(value)):
        return None
    if is_text(kind):
        found: Any = value if isinstance(value, str) else text_of(value)
    elif types.is_boolean(kind):
        found = {"true": True, "false": False}.get(text_of(value) or "")
    elif types.is_integer(kind):
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        found = value if is_integer else integer_of(value)
    elif types.is_floating(kind):
        found = None if isinstance(value, bool) else number_of(value)
    elif types.is_date(kind):
        found = text_of(value)
    elif types.is_decimal(kind):
        found = None if number_of(value) is None else Decimal(str(value))
    else:
        found = value
    if found is None or (found == MISSING_INTEGER and not isinstance(value, int)):
        raise ValueError(f"expected a value of type {kind}, received {value!r}")
    try:
        scalar = pa.scalar(found) if isinstance(found, str) else pa.scalar(found, kind)
        return scalar.cast(kind).as_py()
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise ValueError(f"expected a value of type {kind}, received {value!r}") from error


def spellings(value: Any, kind: pa.DataType) -> list[Any]:
    """The values of a column of this type that are equal to a value, however it is written.

    A column of text has one as a token, and may have it as it was written in the table.

    Raises:
        ValueError: no value of the column can be equal to it.
    """
    if not is_text(kind):
        return [read_cell(value, kind)]
    token = text_of(value)
    written = [text for text, truth in TRUTH.items() if truth == token]
    return list(dict.fromkeys([read_cell(value, kind), token, *written]))


def text_spellings(texts: Collection[str], kind: pa.DataType) -> pa.Array:
    """The values of a column of text that are equal to one of some texts; see `spellings`.

    Raises:
        pa.ArrowException, UnicodeEncodeError: a text cannot be in the column.
    """
    tokens = {text_of(text) for text in texts}
    written = [text for text, truth in TRUTH.items() if truth in tokens]
    return pa.array({*texts, *tokens, *written}, kind)


def first_text(values: pa.Array) -> str | None:
    """The first text for which a column is none of numbers, such as 007; None if there is none."""
    array = simple_array(values)
    given = [] if array is None else array.to_pylist()
    texts = (text for text in given if isinstance(text, str) and text)
    return next((text for text in texts if NUMBER.fullmatch(text) is None), None)
