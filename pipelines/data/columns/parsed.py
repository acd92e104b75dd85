"""Parsed columns, and what a column holds.

Nothing is raised for a bad value: each result says which values are missing and which cannot be
parsed, so that the caller can show the rows. Missing is a null, or an empty text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from towers.features.reading import Mask, read_numbers
from towers.features.values import INT64, is_integer_text

Kind = Literal["integer", "float", "boolean", "text", "empty", "other"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parsed:
    """A parsed column, row by row."""

    values: pd.Series
    missing: Mask
    """The values that were not given."""
    faulty: Mask
    """The values that were given, but cannot be parsed; never one that is missing."""


def kind_of(column: pd.Series) -> Kind:
    """Say what a column holds, its missing values left aside; `other` is a mixture or a date."""
    names: dict[str, Kind] = {
        "integer": "integer",
        "floating": "float",
        "mixed-integer-float": "float",
        "decimal": "float",
        "boolean": "boolean",
        "string": "text",
        "empty": "empty",
    }
    return names.get(types.infer_dtype(plain(column), skipna=True), "other")


def plain(column: pd.Series) -> pd.Series:
    """Give a column without pandas' categories, which only say how it is stored."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object)
    return column


def is_missing(column: pd.Series) -> Mask:
    """Mark nulls and empty texts."""
    column = plain(column)
    missing = column.isna().to_numpy(dtype=bool)
    if types.is_object_dtype(column.dtype) or types.is_string_dtype(column.dtype):
        missing = missing | are_among(column, [""])
    return missing


def are_among(column: pd.Series, texts: Collection[str]) -> Mask:
    """Mark the values that are one of some texts."""
    try:
        found = column.isin(list(texts))
    except TypeError:  # a list has no hash
        found = column.map(lambda value: isinstance(value, str) and value in texts)
    return found.to_numpy(dtype=bool)


def are_integers(texts: Iterable[str]) -> bool:
    """Whether every text is an integer of 64 bits as Python writes it."""
    return all(map(is_integer_text, texts))


def is_integer(value: Any) -> bool:
    """Whether a number is an integer of 64 bits, and its type could not have meant another one."""
    if isinstance(value, float | np.floating):
        digits = int(np.finfo(type(value)).nmant) + 1
        if not abs(value) < 2**digits:  # from here on, its type leaves integers out
            return False
    return bool(INT64.min <= value <= INT64.max and value == int(value))


def parse_numbers(column: pd.Series) -> Parsed:
    """Parse numbers into float64; missing values, and NaN, become NaN. Infinity is a fault."""
    read = read_numbers(plain(column), largest=np.inf)
    return Parsed(values=pd.Series(read.values), missing=read.missing, faulty=read.faulty)
