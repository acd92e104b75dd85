"""Times: read a column of them as seconds, or as the numbers that they are.

What has the type of a date, or is written as one, becomes seconds since 1970 (UTC); numbers stay as
they are, in whatever unit. Which of the two a table's times are, and whether 04/05/2016 is in April
or in May, all of its rows decide together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from pipelines.data.columns.parsed import Parsed, is_missing, parse_numbers
from towers.errors import ConfigError
from towers.features.reading import Mask

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How many of each make a second; as `timestamp_format`, they say what numbers are."""
LARGEST_NUMBER = 2.0**63
"""Numbers from here on are no times."""

DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y"),
    *("%B %d, %Y", "%b %d, %Y", "%B %d %Y", "%b %d %Y", "%m %d, %Y"),
    *("%d %B %Y", "%d %b %Y", "%d-%B-%Y", "%d-%b-%Y", "%d/%b/%Y"),
)
"""Dates that can be read in one way only."""
DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y")
MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y")
CLOCKS = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", ":%H:%M:%S"),
    *(", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %I:%M %p", ", %I:%M:%S %p"),
)
"""Times of the day, as they stand behind a date."""
CLOCK_FIRST = ("%b %d %H:%M:%S %Y", "%b %d %H:%M:%S %z %Y")
"""The forms of C's `ctime` and of tweets."""

NUMERIC_DATE = re.compile(r"([0-9]{1,2})[/-]([0-9]{1,2})[/-][0-9]{4}(?![0-9])")
"""A date of which it is to be found out whether the day or the month comes first."""
WEEKDAY = re.compile(r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +")
ZONE = re.compile(r" ?(?:GMT|UTC|Z)$")
MONTHS = 12

Order = Literal["day first", "month first", "unknown"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedTimes(Parsed):
    """Times as float64."""

    ambiguous: Mask
    """The faulty values that are dates, of which the day or the month may come first."""


@dataclass(frozen=True, kw_only=True)
class TimeReading:
    """How the times of one table are read."""

    are_dates: bool
    """Whether they are dates; otherwise they are numbers."""
    order: Order = "unknown"
    """What comes first in dates such as 04/05/2016."""
    format: str | None = None
    """The form of all of them, as the configuration says."""

    @classmethod
    def of(cls, pieces: Iterable[pd.Series], *, format: str | None = None) -> TimeReading:
        """Look at all times of a table, in pieces; or take the `format` that is said.

        Without a type that says so, they are dates if fewer than half of them are numbers.

        Raises:
            ConfigError: `format` is none.
        """
        if format is not None:
            return cls(are_dates=_are_dates_by_format(format), format=format)
        given = no_numbers = 0
        first, second = 0, 0
        for piece in pieces:
            if types.is_datetime64_any_dtype(piece.dtype):
                return cls(are_dates=True)
            if types.is_numeric_dtype(piece.dtype):
                return cls(are_dates=False)
            numbers = parse_numbers(piece)
            given += int((~numbers.missing).sum())
            no_numbers += int(numbers.faulty.sum())
            texts = pd.unique(piece[numbers.faulty])
            found = [NUMERIC_DATE.match(text) for text in texts if isinstance(text, str)]
            first = max([first, *(int(date[1]) for date in found if date)])
            second = max([second, *(int(date[2]) for date in found if date)])
        order: Order = "unknown"
        if (first > MONTHS) != (second > MONTHS):
            order = "day first" if first > MONTHS else "month first"
        return cls(are_dates=2 * no_numbers > given, order=order)

    def parse(self, column: pd.Series) -> ParsedTimes:
        """Parse times into float64; missing and faulty ones are NaN.

        A date that nanoseconds of 64 bits cannot hold (before 1678, or after 2261) is a fault, and
        so is a number that an integer of 64 bits cannot hold.
        """
        missing = is_missing(column)
        ambiguous = np.zeros(len(column), dtype=np.bool_)
        if types.is_datetime64_any_dtype(column.dtype):
            seconds = _seconds(pd.Series(column))
        elif not self.are_dates:
            numbers = parse_numbers(column)
            missing, seconds = numbers.missing, numbers.values.to_numpy(dtype=np.float64)
            seconds = np.where(np.abs(seconds) < LARGEST_NUMBER, seconds, np.nan)
            seconds = seconds / UNITS.get(self.format or "", 1.0)
        elif self.format is not None:
            texts = column.map(str, na_action="ignore")
            seconds = _seconds(_in_format(texts, self.format))
        else:
            seconds = _seconds(self._dates(column))
            if self.order == "unknown":
                left = np.flatnonzero(np.isnan(seconds) & ~missing)
                ambiguous[left] = [_is_numeric_date(column.iloc[row]) for row in left]
        return ParsedTimes(
            values=pd.Series(seconds),
            missing=missing,
            faulty=np.isnan(seconds) & ~missing,
            ambiguous=ambiguous,
        )

    def _dates(self, column: pd.Series) -> pd.Series:
        """Read dates in ISO 8601, and then those in other forms; what is none becomes NaT."""
        codes, uniques = pd.factorize(column.astype(object))
        values = pd.Series(uniques, dtype=object)
        dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
        formats = _formats(self.order)
        left = values[dates.isna()]
        left = left[[isinstance(value, str) for value in left]].map(_normal)
        for common in left.head(1):  # most often, all are written alike
            for format_ in formats.get(_shape(common), ()):
                dates = dates.fillna(_in_format(left, format_))
            left = left[dates[left.index].isna()]
        for shape, group in left.groupby(left.map(_shape)):
            for format_ in formats.get(str(shape), ()):
                dates = dates.fillna(_in_format(group, format_))
        missing = pd.Series([pd.NaT], dtype=dates.dtype)  # for code -1
        return pd.concat([dates, missing], ignore_index=True).iloc[codes].reset_index(drop=True)


def _are_dates_by_format(format_: str) -> bool:
    """Whether a `timestamp_format` is that of dates, rather than a unit of numbers."""
    if format_ in UNITS:
        return False
    try:
        if "%" in format_:
            pd.to_datetime(pd.Series(["0"]), format=format_, errors="coerce", utc=True)
            return True
    except ValueError:
        pass
    raise ConfigError(
        "timestamp_format: expected the form of a date in Python's notation, such as "
        f'"%d/%m/%Y %H:%M", or a unit of numbers, one of {list(UNITS)}, received {format_!r}'
    )


def _in_format(texts: pd.Series, format_: str) -> pd.Series:
    """Read texts in one form."""
    dates: pd.Series = pd.to_datetime(texts, errors="coerce", utc=True, format=format_)
    return dates


def _seconds(dates: pd.Series) -> NDArray[np.float64]:
    """Give dates, with or without a zone, as seconds since 1970; NaN for none, or one out of range.

    Those without a zone are in UTC.
    """
    dates = dates.dt.tz_localize("UTC") if dates.dt.tz is None else dates.dt.tz_convert("UTC")
    is_date = dates.between(
        pd.Timestamp.min.tz_localize("UTC"), pd.Timestamp.max.tz_localize("UTC")
    )
    micros = dates.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return np.where(is_date.to_numpy(dtype=bool), micros / UNITS["us"], np.nan)


def _normal(text: str) -> str:
    """Write a text without a weekday, and without the names of zones."""
    return ZONE.sub(" +0000", WEEKDAY.sub("", " ".join(text.split())))


def _shape(text: str) -> str:
    """Write 9 for every number, and a for every word, so that texts of one form look the same."""
    return re.sub(r"[0-9]+", "9", re.sub(r"[A-Za-z]+", "a", text.replace("T", " T ")))


@cache
def _formats(order: Order) -> dict[str, list[str]]:
    """The forms of dates by their shape."""
    days = DAYS + {"day first": DAY_FIRST, "month first": MONTH_FIRST, "unknown": ()}[order]
    sample: Any = pd.Timestamp("2016-04-20 13:05:07.123456", tz="UTC")
    found: dict[str, list[str]] = {}
    forms = [day + clock for day, clock in product(days, CLOCKS)] + list(CLOCK_FIRST)
    for form in [*forms, *(f"{form} %z" for form in forms)]:
        found.setdefault(_shape(sample.strftime(form)), []).append(form)
    return found


def _is_numeric_date(value: object) -> bool:
    """Whether a value is a date that is read by its order of day and month."""
    return isinstance(value, str) and NUMERIC_DATE.match(value) is not None
