"""Values: which token, and which number, one raw value is; `docs/values.md` has the table.

A value means the same however it is written: as Python's, NumPy's, pandas' or Arrow's, in the text
of a CSV file, or in JSON. `towers.features.reading` reads whole columns by the same rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

INT64 = np.iinfo(np.int64)
MISSING_INTEGER = int(INT64.min)
"""What stands for a missing integer token where a dense tensor needs a value."""
MISSING_STRING = ""
"""What stands for a missing text token."""

INTEGER = re.compile(r"0|-?[1-9][0-9]*")
"""An integer as Python writes it, so that text that looks different, like 007, stays text."""

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A text that makes a column one of numbers if all others do; 007 does not."""

TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Other spellings of the two booleans."""

ODD = (
    r"True|TRUE|False|FALSE"
    r"|-?(?:0|[1-9][0-9]*)\.[0-9]+"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)
"""Texts that are no tokens as they stand: booleans, decimal numbers, and dates with a time."""
_ODD = re.compile(ODD)
_ODD_STARTS = frozenset("TF-0123456789")


def missing_marker(dtype: Any) -> Any:
    """The marker of a missing value of this type."""
    kind = np.dtype(dtype).kind
    return {"O": MISSING_STRING, "i": MISSING_INTEGER, "f": np.nan}[kind]


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, pandas' NA or NaT, or an empty text."""
    if isinstance(value, str):
        return not value
    if isinstance(value, float | np.floating | Decimal):
        return bool(value != value)  # noqa: PLR0124
    return value is None or value is pd.NA or value is pd.NaT


def text_of(value: Any) -> str | None:
    """Write a value as a token; "" for a missing one, and None for what can be no token."""
    if isinstance(value, str):
        return _rewritten(value)
    if is_missing(value):
        return MISSING_STRING
    for types, write in _WRITERS:
        if isinstance(value, types):
            return write(value)
    is_token = pd.api.types.is_scalar(value) and not isinstance(value, bytes)
    return str(value) if is_token else None


def integer_of(value: Any) -> int | None:
    """Read an integer of 64 bits; the missing marker for a missing value, None for any other."""
    text = str(value) if type(value) is int else text_of(value)
    if text == MISSING_STRING:
        return MISSING_INTEGER
    return int(text) if text is not None and is_integer_text(text) else None


def is_integer_text(text: str) -> bool:
    """Whether a text is an integer of 64 bits as Python writes it."""
    return INTEGER.fullmatch(text) is not None and INT64.min <= int(text) <= INT64.max


def number_of(value: Any) -> float | None:
    """Read a finite number, booleans as 1 and 0; NaN for a missing value, None for any other.

    A text is a number in Python's notation without underscores.
    """
    if isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(TRUTH.get(value, value), value)
    if is_missing(value) or str(value).strip().lower() == "nan":
        return math.nan
    is_number = isinstance(value, str | Real | Decimal | np.bool_)
    if not is_number or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _rewritten(text: str) -> str:
    """Write a text as the value that it stands for is written; all others stay as they are."""
    if text[:1] not in _ODD_STARTS or _ODD.fullmatch(text) is None:
        return text
    if text in TRUTH:
        return TRUTH[text]
    if ":" not in text:
        return _without_zeros(text)
    try:
        return _time_text(pd.Timestamp(text))
    except ValueError:  # such as the 31st of June
        return text


def _number_text(value: float | np.floating[Any] | Decimal) -> str:
    """Write a number in the fewest digits that tell it from others of its type; 35 for 35.0."""
    if isinstance(value, Decimal):
        return _without_zeros(f"{value:f}")
    if not math.isfinite(value):
        return str(value)
    if value == np.trunc(value) and INT64.min <= value <= INT64.max:
        return str(int(value))
    return _without_zeros(np.format_float_positional(value, trim="0"))


def _without_zeros(number: str) -> str:
    """Leave out what adds nothing to a decimal number: 35.50 is 35.5, and 35.0 is 35."""
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


def _time_text(time: pd.Timestamp) -> str:
    """Write a time in ISO 8601: midnight without a zone as the date, with a zone in UTC."""
    zone = ""
    if time.tzinfo is not None:
        time, zone = time.tz_convert("UTC").tz_localize(None), "Z"
    day, _, hours = time.isoformat().partition("T")
    if "." in hours:
        hours = hours.rstrip("0").rstrip(".")
    return day if hours == "00:00:00" and not zone else f"{day}T{hours}{zone}"


_WRITERS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (bool | np.bool_, lambda value: "true" if value else "false"),
    (int | np.integer, lambda value: str(int(value))),
    (float | np.floating | Decimal, _number_text),
    (datetime | np.datetime64, lambda value: _time_text(pd.Timestamp(value))),
    (date, date.isoformat),
)
"""How values of each type are written as tokens."""
