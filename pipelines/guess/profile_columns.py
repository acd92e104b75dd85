"""Profile the columns of a table: what their values look like, each column by itself."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.columns.parsed import is_missing, kind_of, plain
from pipelines.data.columns.times import (
    CLOCKS,
    DAY_FIRST,
    MONTH_FIRST,
    UNITS,
    TimeReading,
)
from pipelines.data.sources.source import Rows
from towers.features.lists import cut_lists, vector_length
from towers.features.reading import read_numbers

SAMPLE = 4000
"""How many different values of a column are looked at."""
MOST = 0.95
"""What holds for this share of the values is taken to hold for the column."""
FIRST_TIME, LAST_TIME = 631_152_000, 4_102_444_800
"""Numbers are times if they lie between 1990 and 2100, in some unit."""
LIST_SEPARATORS = ("|", ";", ", ", ",", "/")
CODE = re.compile(r"0[0-9]+")
"""A number with a zero before it is a code, such as a postal one."""
MOST_TOKENS = 0.3
"""Lists have at most so many different tokens for each that they hold."""
MOST_WORDS = 4
"""A token of a list has at most so many words on average."""
SHORTEST_VECTOR = 3
URL = re.compile(r"https?://|www\.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """A column as it was read, missing values as None."""

    name: str
    place: int
    """Its number in the table, from 0."""
    values: pd.Series
    typed: bool

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """Which values are missing."""
        return is_missing(self.values)

    @cached_property
    def keys(self) -> pd.Series:
        """The values as something that has a hash; -1 codes are missing."""
        values = self.values.mask(self.missing, None)
        if self.has_lists:
            values = values.map(lambda cell: None if cell is None else str(list(cell)))
        return pd.Series(pd.factorize(values.astype(object))[0])

    @cached_property
    def distinct(self) -> pd.Index:
        """The different values that are given, as text."""
        given = self.values[~self.missing]
        return pd.Index(given.drop_duplicates().astype(str)).unique()

    @property
    def n_given(self) -> int:
        """How many values are given."""
        return int((~self.missing).sum())

    @property
    def missing_share(self) -> float:
        """The share of the values that are missing."""
        return float(self.missing.mean()) if len(self.missing) else 1.0

    @cached_property
    def n_distinct(self) -> int:
        """How many different values there are."""
        return int(self.keys.max()) + 1 if len(self.keys) else 0

    @property
    def distinct_share(self) -> float:
        """How many different values there are for each value that is given."""
        return self.n_distinct / max(self.n_given, 1)

    @cached_property
    def has_lists(self) -> bool:
        """Whether its cells are lists by type."""
        return any(isinstance(cell, list | tuple | np.ndarray) for cell in self.some)

    @cached_property
    def some(self) -> list[Any]:
        """Some given values, spread over the table."""
        given = self.values[~self.missing]
        step = max(len(given) // SAMPLE, 1)
        return given.iloc[::step].tolist()[:SAMPLE]

    @cached_property
    def texts(self) -> list[str]:
        """Some different values as text."""
        return [text for text in dict.fromkeys(map(str, self.some)) if text]

    @cached_property
    def numbers(self) -> NDArray[np.float64] | None:
        """All given values as numbers, if (nearly) all are."""
        if self.has_lists or kind_of(self.values[~self.missing]) in {"boolean", "other"}:
            return None
        if not self.typed and any(map(CODE.fullmatch, self.texts)):
            return None
        read = read_numbers(plain(self.values), largest=np.inf)
        given = self.n_given
        if not given or read.faulty.sum() > (1 - MOST) * given:
            return None
        numbers: NDArray[np.float64] = read.values[~np.isnan(read.values)]
        return numbers

    @cached_property
    def are_integers(self) -> bool:
        """Whether all numbers are whole."""
        return self.numbers is not None and bool((self.numbers == np.trunc(self.numbers)).all())

    @cached_property
    def unit(self) -> str | None:
        """The unit in which its numbers are times since 1970, if they may be."""
        if self.numbers is None or len(self.numbers) == 0:
            return None
        low, high = np.quantile(self.numbers, [0.01, 0.99])
        for unit, factor in UNITS.items():
            if low >= FIRST_TIME * factor and high <= LAST_TIME * factor:
                return unit
        return None

    @cached_property
    def dates(self) -> DateColumn | None:
        """How its dates are written, if it holds dates."""
        if isinstance(self.values.dtype, pd.DatetimeTZDtype) or self.values.dtype.kind == "M":
            return DateColumn()
        if self.has_lists or self.numbers is not None or not self.n_given:
            return None
        reading = TimeReading.of([self.values])
        some = pd.Series(self.texts, dtype=object)
        parsed = reading.parse(some)
        if parsed.ambiguous.sum() >= MOST * len(some):
            return DateColumn(day_or_month=_ambiguous_format(some))
        is_date = reading.are_dates and parsed.faulty.sum() <= (1 - MOST) * len(some)
        return DateColumn(order=reading.order) if is_date else None

    @cached_property
    def vector_length(self) -> int:
        """The length of its vectors, 0 if it holds none."""
        if not self.has_lists and not all(_is_vector_text(text) for text in self.texts[:50]):
            return 0
        some = self.some[:SAMPLE]
        length = vector_length(some)
        if length < SHORTEST_VECTOR or not some:
            return 0
        lists = cut_lists(some, None) if self.has_lists else None
        if lists is not None:
            read = read_numbers(lists.values)
            whole = bool((read.values == np.trunc(read.values)).all())
            is_one = (lists.lengths == length).mean() >= MOST
            return 0 if read.faulty.any() or whole or not is_one else length
        return length

    @cached_property
    def list_separator(self) -> str | None:
        """What stands between the values of lists written as text, if there are such."""
        if self.has_lists or self.numbers is not None or not self.texts:
            return None
        for separator in LIST_SEPARATORS:
            # a comma stands within single values, too: "Tolkien, J. R. R." often
            texts = list(map(str, self.some)) if separator in "|;" else self.texts
            cut = [[token.strip() for token in text.split(separator)] for text in texts]
            if sum(len(tokens) > 1 for tokens in cut) < 0.2 * len(cut):
                continue
            counts = Counter(token for tokens in cut for token in tokens if token)
            total = sum(counts.values())
            words = sum(n * len(token.split()) for token, n in counts.items()) / max(total, 1)
            recur = len(counts) <= MOST_TOKENS * total or _move(cut) >= MOST_TOKENS
            if total and recur and words <= MOST_WORDS:
                return separator
        return None

    @property
    def mean_words(self) -> float:
        """How many words its texts have on average."""
        texts = self.texts[:1000]
        return sum(len(text.split()) for text in texts) / max(len(texts), 1)

    @property
    def are_urls(self) -> bool:
        """Whether it holds addresses of pages or pictures."""
        texts = self.texts[:100]
        return bool(texts) and sum(bool(URL.match(text)) for text in texts) > MOST * len(texts)

    @cached_property
    def may_be_id(self) -> bool:
        """Whether its values are whole numbers, or short texts such as ids have."""
        if self.has_lists or not self.n_given or kind_of(self.values[~self.missing]) == "boolean":
            return False
        if self.numbers is not None:
            return self.are_integers
        if self.dates is not None:
            return False
        lengths = [len(text) for text in self.texts]
        return self.mean_words < 1.5 and max(lengths) <= 64  # noqa: PLR2004


@dataclass(frozen=True, kw_only=True)
class DateColumn:
    """How the dates of a column are written."""

    order: str = "unknown"
    day_or_month: tuple[str, str] | None = None
    """The two forms that all of them fit, where the day or the month may come first."""


def columns_of(rows: Rows) -> list[Column]:
    """Take the columns of a table."""
    return [
        Column(name=name, place=place, values=rows.column(name), typed=rows.typed)
        for place, name in enumerate(rows.frame.columns)
    ]


def _move(cells: list[list[str]]) -> float:
    """The share of tokens that stand at several places of their lists, as those of a set do."""
    places: dict[str, set[int]] = {}
    for tokens in cells:
        for place, token in enumerate(tokens):
            places.setdefault(token, set()).add(place)
    return sum(len(found) > 1 for found in places.values()) / max(len(places), 1)


def _is_vector_text(text: str) -> bool:
    """Whether a text is a list of numbers with fractions."""
    return (
        re.fullmatch(r"[\[(]?\s*(?:-?\d+\.?\d*(?:[eE][+-]?\d+)?[\s,;|]*){3,}[\])]?", text)
        is not None
        and "." in text
    )


def _ambiguous_format(texts: pd.Series) -> tuple[str, str] | None:
    """The forms with the day first, and with the month first, that all texts fit."""
    for day, month in zip(DAY_FIRST, MONTH_FIRST, strict=True):
        for clock in CLOCKS:
            form = day + clock
            if pd.to_datetime(texts, errors="coerce", format=form, utc=True).notna().all():
                return form, month + clock
    return None
