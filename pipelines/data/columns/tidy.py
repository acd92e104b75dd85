"""Give the columns of users and items the types of their values."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.data.columns.parsed import Parsed, are_integers, kind_of, plain
from towers.features.lists import Lists, cut_lists, read_vectors
from towers.features.number_form import NumberForm
from towers.features.reading import (
    Mask,
    is_marker,
    read_numbers,
    read_tokens,
    simple_array,
    token_kind,
)
from towers.features.values import NUMBER

EXACT_DIGITS = 16
"""A float holds every number that is written with fewer characters and no exponent."""
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def tidy_column(column: pd.Series, *, typed: bool) -> Parsed:
    """Give a column the type of its values, so that integers stay integers and keep their digits.

    A column that is not `typed`, because it comes from text, has the type that all of its values
    look like: integers of 64 bits, numbers, booleans or dates. 007 is text, and so is a number
    that a float would change. Text and mixtures become text, missing values null. A list, and
    bytes, are a fault.
    """
    column = plain(column)
    read = read_tokens(column, "text")
    given = column.mask(read.faulty, None) if read.faulty.any() else column
    kind = kind_of(given[~read.faulty & ~read.missing])
    if kind == "text" or (kind == "empty" and given.dtype == object):
        values = given.astype(object).mask(read.missing, None)
        values = values if typed else _look_like(values, read.values)
    elif kind == "integer" and token_kind(given) == "integer":
        values = _as_integers(given)
    elif simple_array(given) is None:
        texts = pd.Series(read.values, index=column.index, dtype=object)
        values = texts.mask(is_marker(read.values), None)
    elif kind == "float" and given.dtype == object:
        values = tidy_numbers(given).values
    else:
        values = given
    return Parsed(values=values, missing=read.missing, faulty=read.faulty)


def tidy_shown(column: pd.Series, *, typed: bool) -> pd.Series:
    """Do what `tidy_column` does, for a column that no feature reads: it keeps what it holds."""
    if typed and not (column.dtype == object and kind_of(column) == "integer"):
        return column
    return tidy_column(column, typed=typed).values


def tidy_numbers(column: pd.Series, *, form: NumberForm | None = None) -> Parsed:
    """Read numbers as `Int64` where they are integers by type or as text, else as float64."""
    column = plain(column)
    read = read_numbers(column, form=form)
    values = pd.Series(read.values, index=column.index)
    if column.dtype == object or kind_of(column[~read.missing]) in {"integer", "text"}:
        known = column.mask(read.faulty, None) if read.faulty.any() else column
        if token_kind(known) == "integer":
            values = _as_integers(known)
    return Parsed(values=values, missing=read.missing, faulty=read.faulty)


def tidy_bags(
    tokens: pd.Series, weights: pd.Series | None, *, separator: str
) -> tuple[Parsed, Parsed | None]:
    """Read lists of tokens, and of their weights, as lists of equal length; missing ones as [].

    Cells are lists, or text to cut at `separator`. A token that is missing is left out with its
    weight; a weight that is missing is 1. Lists of different lengths are a fault of the weights.
    """
    lists = cut_lists(plain(tokens), separator)
    flat = read_tokens(lists.values, token_kind(lists.values))
    keep = ~flat.missing
    parsed = _regroup(flat.values, lists, keep=keep, faulty=flat.faulty)
    if weights is None:
        return parsed, None
    given = cut_lists(plain(weights), separator)
    fits = (given.lengths == lists.lengths) | (given.lengths == 0)
    numbers = np.full(int(lists.lengths.sum()), 1.0)
    has_weight = np.repeat(fits & (given.lengths > 0), lists.lengths)
    read = read_numbers(given.values)
    is_used = np.repeat(fits, given.lengths)
    numbers[has_weight] = np.nan_to_num(read.values[is_used], nan=1.0)
    faulty = np.zeros(len(numbers), dtype=np.bool_)
    faulty[has_weight] = read.faulty[is_used]
    cells = Lists(values=numbers, lengths=lists.lengths, faulty=given.faulty | ~fits)
    return parsed, _regroup(numbers, cells, keep=keep, faulty=faulty)


def tidy_vectors(column: pd.Series, *, size: int) -> Parsed:
    """Read vectors of `size` numbers as arrays of float32; missing ones as None."""
    read = read_vectors(plain(column), size=size)
    missing = np.isnan(read.values).all(axis=1)
    cells = np.empty(len(missing), dtype=object)
    cells[:] = [
        None if is_missing else vector
        for vector, is_missing in zip(read.values, missing, strict=True)
    ]
    values = pd.Series(cells, index=column.index)
    return Parsed(values=values, missing=missing & ~read.faulty, faulty=read.faulty)


def _look_like(column: pd.Series, tokens: NDArray[Any]) -> pd.Series:
    """Read texts as what all of them look like, where that changes none."""
    distinct = pd.Index(tokens[tokens != ""]).unique()
    if distinct.empty:
        return column
    if are_integers(distinct):
        return _as_integers(column)
    if distinct.isin(["true", "false"]).all():
        truth = pd.Series(tokens).map({"true": True, "false": False})
        return truth.astype("boolean").set_axis(column.index)
    if all(NUMBER.fullmatch(text) and _is_exact(text) for text in distinct):
        return pd.Series(read_numbers(column, largest=np.inf).values, index=column.index)
    if distinct.str.fullmatch(DAY).all():
        try:
            days = pa.array(column, pa.string(), from_pandas=True).cast(pa.date32())
        except pa.ArrowInvalid:  # such as the 31st of June
            pass
        else:
            return pd.Series(days.to_pylist(), index=column.index, dtype=object)
    return column


def _is_exact(number: str) -> bool:
    """Whether a float holds the number that is written."""
    return (len(number) < EXACT_DIGITS and "e" not in number.lower()) or (
        Decimal(number) == Decimal(repr(float(number)))
    )


def _as_integers(column: pd.Series) -> pd.Series:
    """Whole numbers as `Int64`, missing as NA."""
    read = read_tokens(column, "integer")
    values = pd.array(read.values, dtype="Int64")
    values[is_marker(read.values)] = pd.NA
    return pd.Series(values, index=column.index)


def _regroup(values: NDArray[Any], lists: Lists, *, keep: Mask, faulty: Mask) -> Parsed:
    """Cut values into lists, without those that are not in `keep`; missing lists are empty."""
    rows = np.repeat(np.arange(len(lists.lengths)), lists.lengths)
    kept = np.bincount(rows[keep], minlength=len(lists.lengths))
    cuts = np.concatenate([[0], np.cumsum(kept)]).tolist()
    cells = values[keep].tolist()
    at_fault = lists.faulty.copy()
    at_fault[rows[faulty]] = True
    return Parsed(
        values=pd.Series([cells[start:stop] for start, stop in pairwise(cuts)], dtype=object),
        missing=np.zeros(len(lists.lengths), dtype=bool),
        faulty=at_fault,
    )
