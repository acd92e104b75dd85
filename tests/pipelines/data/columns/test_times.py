from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.columns.times import ParsedTimes, TimeReading
from towers.errors import ConfigError

NOON = 1461157500.0
"""2016-04-20 13:05:00 UTC."""
DAY = 1461110400.0
"""2016-04-20."""


ZONED = "datetime64[ns, Europe/Paris]"


def column(values: Any, dtype: Any = object) -> pd.Series:
    found: pd.Series = pd.Series(values, dtype=dtype)
    return found


def parse(values: Any, dtype: Any = object, *, form: str | None = None) -> ParsedTimes:
    whole = column(values, dtype)
    return TimeReading.of([whole], format=form).parse(whole)


def seconds(parsed: ParsedTimes) -> list[float | None]:
    return [None if np.isnan(value) else value for value in parsed.values]


def test_numbers_are_times_as_they_are() -> None:
    parsed = parse(["978300760", "1.5", "soon", "", None])
    assert seconds(parsed) == [978300760.0, 1.5, None, None, None]
    assert parsed.missing.tolist() == [False, False, False, True, True]
    assert parsed.faulty.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "2016-04-20T13:05:00Z",
        "2016-04-20 13:05",
        "2016-04-20T15:05:00+02:00",
        "2016-04-20 13:05:00 UTC",
        "2016/04/20 13:05:00",
        "20.04.2016 13:05",
        "April 20, 2016 13:05",
        "Apr 20, 2016, 1:05 PM",
        "20 April 2016 13:05:00",
        "20-Apr-2016 13:05",
        "Wednesday, April 20, 2016 1:05:00 PM",
        "Wed, 20 Apr 2016 13:05:00 +0000",
        "Wed, 20 Apr 2016 13:05:00 GMT",
        "20 Apr 2016 15:05:00 +0200",
        "Wed Apr 20 13:05:00 2016",
        "Wed Apr 20 13:05:00 +0000 2016",
        "20/Apr/2016:13:05:00 +0000",
        "04 20, 2016 13:05",
    ],
)
def test_times_in_the_common_forms_are_read(text: str) -> None:
    assert seconds(parse([text])) == [NOON]


@pytest.mark.parametrize("text", ["April 20, 2016", "20 Apr 2016", "2016-04-20", "04 20, 2016"])
def test_days_are_read(text: str) -> None:
    assert seconds(parse([text, None])) == [DAY, None]


@given(
    times=st.lists(
        st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)), min_size=1
    ),
    form=st.sampled_from(["%Y-%m-%d %H:%M:%S", "%d %B %Y %H:%M:%S", "%b %d, %Y %I:%M:%S %p"]),
)
def test_what_is_written_is_what_is_read(times: list[datetime.datetime], form: str) -> None:
    expected = [time.replace(microsecond=0, tzinfo=datetime.UTC).timestamp() for time in times]
    assert seconds(parse([time.strftime(form) for time in times])) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["04/05/2016", "20/04/2016 13:05"], [1462320000.0, NOON]),
        (["04/05/2016", "04/20/2016 13:05"], [1459814400.0, NOON]),
        (["04-05-2016", "20-04-2016 13:05"], [1462320000.0, NOON]),
    ],
)
def test_one_row_tells_for_all_whether_the_day_comes_first(
    texts: list[str], expected: list[float]
) -> None:
    assert seconds(parse(texts)) == expected
    reading = TimeReading.of(column([text]) for text in texts)  # in pieces, too
    assert seconds(reading.parse(column(texts[:1]))) == expected[:1]


@pytest.mark.parametrize("other", ["05/04/2016", "junk"])
def test_where_no_row_tells_they_are_at_fault_and_ambiguous(other: str) -> None:
    parsed = parse(["04/05/2016", other, "2016-04-20"])
    assert parsed.faulty.tolist() == [True, True, False]
    assert parsed.ambiguous.tolist() == [True, other != "junk", False]


def test_where_rows_disagree_about_the_order_none_is_guessed() -> None:
    assert parse(["20/04/2016", "04/20/2016"]).ambiguous.all()


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        (["20/04/2016", "04/05/2016", "2016-04-20"], "%d/%m/%Y", [DAY, 1462320000.0, None]),
        (["20160420", ""], "%Y%m%d", [DAY, None]),
        ([20160420, 5], "%Y%m%d", [DAY, None]),
        (["1461157500000", "x"], "ms", [NOON, None]),
        (["1461157500"], "s", [NOON]),
    ],
)
def test_a_form_can_be_said(values: Any, form: str, expected: list[float | None]) -> None:
    parsed = parse(values, form=form)
    assert seconds(parsed) == expected
    assert not parsed.ambiguous.any()


@pytest.mark.parametrize("form", ["%Q", "day", ""])
def test_a_form_that_is_none_is_refused(form: str) -> None:
    with pytest.raises(ConfigError, match=r"timestamp_format: expected the form of a date"):
        TimeReading.of([], format=form)


@pytest.mark.parametrize(
    "values",
    [
        column(["2020-01-01", "2020-01-01T00:00:00", None]),
        column(["2020-01-01", "2020-01-01", None], "datetime64[s]"),
        column(["2020-01-01", "2020-01-01", None], "datetime64[us]"),
        column([datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), None]),
        column(["2020-01-01T01:00+01:00", "2020-01-01T01:00+01:00", None], ZONED),
    ],
    ids=["text", "seconds", "microseconds", "date", "with a zone"],
)
def test_dates_become_seconds_however_they_are_held(values: pd.Series) -> None:
    parsed = TimeReading.of([values]).parse(values)
    assert seconds(parsed) == [1577836800.0, 1577836800.0, None]
    assert parsed.missing.tolist() == [False, False, True]
    assert not parsed.faulty.any()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["9999-12-31", "2016-04-20"], "datetime64[us]"),
        (["9999-12-31", "2016-04-20"], object),
        (["December 31, 9999", "2016-04-20"], object),
        ([datetime.date(9999, 12, 31), datetime.date(2016, 4, 20)], object),
        (["0001-01-01", "2016-04-20"], "datetime64[s]"),
    ],
)
def test_a_date_beyond_what_can_be_held_is_a_fault(values: Any, dtype: Any) -> None:
    parsed = parse(values, dtype)
    assert seconds(parsed) == [None, DAY]
    assert parsed.faulty.tolist() == [True, False]


def test_a_number_beyond_what_can_be_held_is_a_fault() -> None:
    assert parse(["1e21", "1.8e308", "5"]).faulty.tolist() == [True, True, False]
    assert parse([1e21, np.inf, 5.0], "float64").faulty.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "2"], False),
        (["1", "2", "soon", "never"], False),
        (["1", "soon", "soon", "2020-01-01"], True),
        ([None, None], False),
    ],
)
def test_most_rows_decide_whether_times_are_dates(texts: list[Any], expected: bool) -> None:
    assert TimeReading.of(column([text]) for text in texts).are_dates == expected


def test_numbers_among_dates_are_faults_and_dates_among_numbers() -> None:
    dates, numbers = TimeReading(are_dates=True), TimeReading(are_dates=False)
    assert dates.parse(column(["3", "2020-01-02"])).faulty.tolist() == [True, False]
    assert numbers.parse(column(["3", "2020-01-02"])).faulty.tolist() == [False, True]


def test_durations_are_no_times() -> None:
    parsed = parse([pd.Timedelta(1), None], "timedelta64[ns]")
    assert parsed.faulty.tolist() == [True, False]
