"""Decide whether ids are integers or text, the same in every table, and parse them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from pipelines.data.columns.parsed import (
    Parsed,
    are_integers,
    is_integer,
    is_missing,
    kind_of,
    plain,
)
from pipelines.data.sources.source import Rows
from towers.errors import DataError

IdKind = Literal["integer", "text"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IdColumn:
    """A column of a table that holds ids."""

    source: Rows
    column: str
    is_first: bool = True
    """Whether no ids come before these; if some do, they are integers."""

    @cached_property
    def present(self) -> pd.Series:
        """The ids that are given."""
        ids = plain(self.source.column(self.column))
        return ids[~is_missing(ids)]

    @cached_property
    def odd(self) -> NDArray[np.int64]:
        """The positions of the texts that are no integers."""
        ids = self.present
        distinct = pd.unique(ids)
        odd = [text for text in distinct if not isinstance(text, str) or not are_integers([text])]
        if not odd:
            return np.empty(0, dtype=np.int64)
        return ids.index[ids.isin(odd)].to_numpy(dtype=np.int64)

    def explain_text(self) -> str | None:
        """Say which id makes text of ids that are integers otherwise; None if none does."""
        if self.source.typed:
            return None
        odd = self.odd
        if not len(odd) or (self.is_first and 2 * len(odd) > len(self.present)):
            return None
        [(file, row)] = self.source.locate(odd[:1])
        value = self.source.frame[self.column].iloc[odd[0]]
        return (
            f"{self.source.name}: {self.column} is read as text, since {value!r} at {file}:{row} "
            "is no integer"
        )

    def __str__(self) -> str:
        return f"column {self.column!r} of {self.source.where}"


def decide_id_kind(columns: Sequence[IdColumn]) -> IdKind:
    """Decide what the ids in `columns`, which all name the same users or items, are.

    They are integers if every column has an integer type or, without a type, holds nothing but
    integers as Python writes them; otherwise text, so that 007 is not 7.

    Raises:
        DataError: a column has an integer type, and another holds text; or a column holds
            neither.
    """
    kinds = [_kind(ids) for ids in columns]
    typed_integers = [
        ids
        for ids, kind in zip(columns, kinds, strict=True)
        if kind == "integer" and ids.source.typed
    ]
    texts = [ids for ids, kind in zip(columns, kinds, strict=True) if kind == "text"]
    if typed_integers and texts:
        place, value = _first_text(texts[0])
        raise DataError(
            f"expected ids of one type, received integers in {typed_integers[0]} but text in "
            f"{texts[0]}, such as {value!r} at {place}; write both as integers or both as text"
        )
    return "text" if texts else "integer"


def parse_ids(column: pd.Series, *, kind: IdKind) -> Parsed:
    """Parse ids into int64 (0 where there is none) or text (object, None where there is none)."""
    column = plain(column)
    if kind == "text":
        missing = is_missing(column)
        # not by way of factorize, which takes a text of one NUL for the empty text
        texts = column.to_numpy(dtype=object, copy=True)
        texts[missing] = None
        return Parsed(
            values=pd.Series(texts, dtype=object),
            missing=missing,
            faulty=np.zeros(len(column), dtype=bool),
        )
    if types.is_signed_integer_dtype(column.dtype) and isinstance(column.dtype, np.dtype):
        return Parsed(
            values=column.astype(np.int64).reset_index(drop=True),
            missing=np.zeros(len(column), dtype=bool),
            faulty=np.zeros(len(column), dtype=bool),
        )
    codes, uniques = pd.factorize(column)
    found = uniques.to_numpy()
    integers = [_integer(value) for value in found]
    values = np.array([value or 0 for value in integers] + [0], dtype=np.int64)
    missing = np.append(is_missing(pd.Series(found)), True)  # a null has the code -1
    faulty = np.array([value is None for value in integers] + [False]) & ~missing
    return Parsed(values=pd.Series(values[codes]), missing=missing[codes], faulty=faulty[codes])


def _kind(ids: IdColumn) -> IdKind | None:
    """Say what one column holds; None if it holds no ids at all."""
    present = ids.present
    kind = kind_of(present)
    if kind == "empty":
        return None
    if kind in {"integer", "float"}:
        return "integer"
    if kind == "text":
        is_integer = not ids.source.typed and not len(ids.odd)
        return "integer" if is_integer else "text"
    firsts = present[~present.map(type).duplicated()].sort_index()
    places = ids.source.locate(firsts.index.to_numpy())
    received = [
        f"{type(value).__name__} ({value!r} at {file}:{row})"
        for value, (file, row) in zip(firsts, places, strict=True)
    ]
    raise DataError(
        f"{ids}: expected ids that are all integers or all text, received values of the type(s) "
        f"{', '.join(received)}; convert the column"
    )


def _first_text(ids: IdColumn) -> tuple[str, Any]:
    """Find an id that is no integer, or the first one of a column of texts."""
    present = ids.present
    odd = [i for i, value in enumerate(present) if ids.source.typed or not are_integers([value])]
    position = int(present.index[odd[0]])
    [(file, row)] = ids.source.locate(np.array([position]))
    return f"{file}:{row}", present.iloc[odd[0]]


def _integer(value: Any) -> int | None:
    """Give a value as an integer of 64 bits; None if it is not exactly one."""
    if isinstance(value, str):
        return int(value) if are_integers([value]) else None
    return int(value) if is_integer(value) else None
