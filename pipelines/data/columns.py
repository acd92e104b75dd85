"""Parse one column: numbers, times, tokens, and bags of tokens with weights.

Nothing is raised for a bad value: each result says which values are missing and which cannot be
parsed, so that the caller can show the rows. Missing is a null, or an empty text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from numbers import Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

Mask = NDArray[np.bool_]
Kind = Literal["integer", "float", "boolean", "text", "empty", "other"]

INTEGER = re.compile(r"0|-?[1-9][0-9]*")
"""An integer as Python writes it, so that text that looks different, like 007, stays text."""
INT64 = np.iinfo(np.int64)


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
        missing = missing | np.fromiter(
            (isinstance(value, str) and not value for value in column),
            dtype=bool,
            count=len(column),
        )
    return missing


def are_integers(texts: Iterable[str]) -> bool:
    """Whether every text is an integer of 64 bits as Python writes it."""
    return all(
        INTEGER.fullmatch(text) is not None and INT64.min <= int(text) <= INT64.max
        for text in texts
    )


def is_integer(value: Any) -> bool:
    """Whether a number is an integer of 64 bits, and its type could not have meant another one."""
    if isinstance(value, float | np.floating):
        digits = int(np.finfo(type(value)).nmant) + 1
        if not abs(value) < 2**digits:  # from here on, its type leaves integers out
            return False
    return bool(INT64.min <= value <= INT64.max and value == int(value))


def parse_numbers(column: pd.Series) -> Parsed:
    """Parse numbers into float64; missing values, and NaN, become NaN. Infinity is a fault."""
    column = plain(column)
    if types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = np.fromiter((_number(value) for value in column), np.float64, count=len(column))
    missing = is_missing(column)
    doubtful = np.flatnonzero(np.isnan(values) & ~missing)
    said_nan = [str(value).strip().lower() == "nan" for value in column.iloc[doubtful]]
    missing[doubtful[np.array(said_nan, dtype=bool)]] = True
    is_finite = np.isfinite(values)
    return Parsed(
        values=pd.Series(np.where(is_finite, values, np.nan)),
        missing=missing,
        faulty=~is_finite & ~missing,
    )


def are_dates(pieces: Iterable[pd.Series]) -> bool:
    """Whether a column of times, in pieces, is to be read as dates.

    Without a type that says so, it is if fewer than half of its values are numbers.
    """
    given = faulty = 0
    for piece in map(plain, pieces):
        by_type = _are_dates_by_type(piece)
        if by_type is not None:
            return by_type
        numbers = parse_numbers(piece)
        given += int((~numbers.missing).sum())
        faulty += int(numbers.faulty.sum())
    return 2 * faulty > given


def parse_times(column: pd.Series, *, as_dates: bool | None = None) -> Parsed:
    """Parse times into float64: numbers as they are, ISO 8601 dates as seconds since 1970 (UTC).

    Whether they are dates is decided as `are_dates` does, if the caller does not say.
    """
    column = plain(column)
    if as_dates is None:
        as_dates = _are_dates_by_type(column)
    if not as_dates:
        numbers = parse_numbers(column)
        if as_dates is not None or 2 * numbers.faulty.sum() <= (~numbers.missing).sum():
            return numbers
    missing = is_missing(column)
    if not types.is_datetime64_any_dtype(column.dtype):
        column = column.astype(object)
    dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    seconds = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return Parsed(
        values=seconds.astype("float64"),
        missing=missing,
        faulty=dates.isna().to_numpy(dtype=bool) & ~missing,
    )


def parse_tokens(column: pd.Series, *, typed: bool) -> Parsed:
    """Parse tokens into integers (`Int64`, missing as NA) or text (object, missing as None).

    Integers stay integers, and whole floats become integers; of a column that is not `typed`, text
    becomes integers if every token is one. All else becomes text; booleans `true` and `false`.
    A list, and bytes, are a fault.
    """
    column = plain(column)
    missing = is_missing(column)
    present = column[~missing]
    kind = kind_of(present)
    if kind == "boolean":
        present = present.map({True: "true", False: "false"})
    if kind == "text":
        as_integers = not typed and are_integers(pd.unique(present))
    else:
        as_integers = kind in {"integer", "float"} and all(is_integer(value) for value in present)
    if as_integers:
        values = pd.Series(pd.NA, index=column.index, dtype="Int64")
        values[~missing] = np.array([int(value) for value in present], dtype=np.int64)
    else:
        texts = np.full(len(column), None, dtype=object)
        texts[~missing] = [str(value) for value in present]
        values = pd.Series(texts, index=column.index, dtype=object)
    faulty = np.zeros(len(column), dtype=bool)
    if kind == "other":
        faulty[~missing] = [
            isinstance(value, bytes) or not types.is_scalar(value) for value in present
        ]
    return Parsed(values=values, missing=missing, faulty=faulty)


def parse_bags(
    tokens: pd.Series, weights: pd.Series | None, *, separator: str, typed: bool
) -> tuple[Parsed, Parsed | None]:
    """Parse lists of tokens, and of their weights, into lists of equal length; missing into [].

    Cells are lists, or text to cut at `separator`. A token that is missing is left out with its
    weight; a weight that is missing is 1. Lists of different lengths are a fault of the weights.
    """
    token_cells, token_faults = _cut(tokens, separator)
    lengths = np.array([len(cell) for cell in token_cells], dtype=np.int64)
    flat = parse_tokens(pd.Series(_chain(token_cells), dtype=object), typed=typed)
    parsed = _regroup(flat, lengths, keep=~flat.missing, faults=token_faults)
    if weights is None:
        return parsed, None
    weight_cells, weight_faults = _cut(weights, separator)
    no_weights = is_missing(weights)
    for row, length in enumerate(lengths.tolist()):
        if no_weights[row]:
            weight_cells[row] = [None] * length
        elif len(weight_cells[row]) != length:
            weight_faults[row] = True
            weight_cells[row] = [None] * length
    numbers = parse_numbers(pd.Series(_chain(weight_cells), dtype=object))
    ones = Parsed(values=numbers.values.fillna(1.0), missing=numbers.missing, faulty=numbers.faulty)
    return parsed, _regroup(ones, lengths, keep=~flat.missing, faults=weight_faults)


def _are_dates_by_type(column: pd.Series) -> bool | None:
    """Whether a column's type says that it holds dates, or numbers; None if it says neither."""
    if types.is_datetime64_any_dtype(column.dtype):
        return True
    return False if types.is_numeric_dtype(column.dtype) else None


def _number(value: Any) -> float:
    """Give a value, or a text in Python's notation without underscores, as a float; else NaN."""
    if not isinstance(value, str | Real | Decimal | np.bool_):
        return math.nan
    if isinstance(value, str) and "_" in value:
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _cut(column: pd.Series, separator: str) -> tuple[list[list[Any]], Mask]:
    """Give each cell as a list, and mark the cells that are neither lists, texts nor values."""
    column = plain(column)
    faults = np.zeros(len(column), dtype=bool)
    cells: list[list[Any]] = []
    for row, cell in enumerate(column):
        if isinstance(cell, str):
            cells.append(cell.split(separator) if cell else [])
        elif isinstance(cell, list | tuple | np.ndarray):
            cells.append(list(cell))
        elif types.is_scalar(cell):
            cells.append([] if pd.isna(cell) else [cell])
        else:
            cells.append([])
            faults[row] = True
    return cells, faults


def _chain(cells: list[list[Any]]) -> list[Any]:
    """Join lists end to end."""
    return [value for cell in cells for value in cell]


def _regroup(flat: Parsed, lengths: NDArray[np.int64], *, keep: Mask, faults: Mask) -> Parsed:
    """Cut parsed values into lists of `lengths`, without the values that are not in `keep`."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    kept = np.bincount(rows[keep], minlength=len(lengths))
    values = flat.values[keep].tolist()
    cuts = np.concatenate([[0], np.cumsum(kept)]).tolist()
    faulty = faults.copy()
    faulty[rows[flat.faulty]] = True
    return Parsed(
        values=pd.Series([values[start:stop] for start, stop in pairwise(cuts)], dtype=object),
        missing=np.zeros(len(lengths), dtype=bool),
        faulty=faulty,
    )
