"""The same values give the same tokens, whatever holds them."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.features.reading import read_ids, read_numbers, read_tokens, token_kind
from towers.features.values import MISSING_INTEGER

INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
SMALL = st.integers(-(2**53), 2**53)
FRACTIONS = st.decimals(
    allow_nan=False, allow_infinity=False, places=2, min_value=0, max_value=10**9
)
TEXTS = st.text(alphabet="aé 0.T-", min_size=1, max_size=4)
DAYS = st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))
TIMES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, min_size=1, max_size=8).filter(any)


def csv_texts(values: Any) -> pd.Series:
    """What pandas writes into a CSV file, as text."""
    file = io.StringIO(pd.DataFrame({"x": pd.Series(values)}).to_csv(index=False))
    return pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)["x"]


def holders(values: list[Any], *, arrow: pa.DataType | None = None) -> Iterator[Any]:
    """The same values in everything that may hold them."""
    yield values
    yield pd.Series(values, dtype=object)
    yield np.array(values, dtype=object)
    yield pa.array(values, arrow)
    yield pa.chunked_array([pa.array(values, arrow), pa.array([], arrow or pa.array(values).type)])
    yield pa.array(values, arrow).dictionary_encode()
    yield pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, arrow)))


def check_alike(columns: Iterator[Any] | list[Any]) -> None:
    """Every column gives the tokens of the first, the kind too."""
    columns = list(columns)
    kind, expected = token_kind(columns[0]), read_tokens(columns[0], "text")
    for column in columns:
        read = read_tokens(column, "text")
        assert read.values.tolist() == expected.values.tolist(), column
        assert not read.faulty.any()
        assert token_kind(column) == kind, column
        if kind == "integer":
            integers = read_tokens(column, "integer")
            assert integers.values.dtype == np.int64
            assert ["" if x == MISSING_INTEGER else str(x) for x in integers.values] == (
                expected.values.tolist()
            )


@given(optional(INTEGERS))
def test_integers(values: list[int | None]) -> None:
    texts = [None if x is None else str(x) for x in values]
    check_alike([*holders(values, arrow=pa.int64()), pd.Series(values, dtype="Int64")])
    check_alike([values, *holders(texts, arrow=pa.string()), json.loads(json.dumps(values))])
    assert token_kind(values) == "integer"


@given(optional(SMALL))
def test_whole_floats_decimals_and_texts_are_integers(values: list[int | None]) -> None:
    floats = [None if x is None else float(x) for x in values]
    decimals = [None if x is None else Decimal(x).quantize(Decimal("1.00")) for x in values]
    columns = [values, floats, *holders(decimals, arrow=pa.decimal128(30, 2)), csv_texts(values)]
    check_alike([*columns, pd.Series(values, dtype="Int64"), pd.Series(floats), csv_texts(floats)])
    assert token_kind(floats) == "integer"


@given(optional(FRACTIONS))
def test_numbers_with_fractions(values: list[Decimal | None]) -> None:
    floats = [None if x is None else float(x) for x in values]
    check_alike([floats, *holders(values, arrow=pa.decimal128(20, 2)), csv_texts(values)])
    check_alike([floats, pd.Series(floats), csv_texts(floats), json.loads(json.dumps(floats))])
    numbers = [read_numbers(column).values for column in (floats, values, csv_texts(values))]
    for read in numbers:
        np.testing.assert_array_equal(read, np.array(floats, dtype=np.float64))


@given(optional(st.booleans()).filter(lambda values: None not in values or True))
def test_booleans(values: list[bool | None]) -> None:
    check_alike([*holders(values, arrow=pa.bool_()), pd.Series(values, dtype="boolean")])
    check_alike([values, csv_texts(values), json.loads(json.dumps(values))])
    known = {*read_tokens(values, "text").values} - {""}
    assert known <= {"true", "false"}
    assert np.nansum(read_numbers(values).values) == values.count(True)


@given(optional(DAYS))
def test_dates(values: list[datetime.date | None]) -> None:
    iso = [None if day is None else day.isoformat() for day in values]
    times = pd.to_datetime(pd.Series(iso))
    columns = [iso, *holders(values, arrow=pa.date32()), pa.array(values, pa.date64()), times]
    check_alike([*columns, pa.array(times), csv_texts(values), csv_texts(times)])


@given(optional(TIMES))
def test_times(values: list[datetime.datetime | None]) -> None:
    typed = pd.Series(values, dtype="datetime64[us]")
    columns = [values, pd.Series(values, dtype=object), pa.array(values, pa.timestamp("us"))]
    check_alike([*columns, typed, typed.astype(str).mask(typed.isna(), None), csv_texts(typed)])
    zoned = typed.dt.tz_localize("Asia/Tokyo")
    check_alike([zoned, zoned.dt.tz_convert("UTC"), csv_texts(zoned), zoned.astype(object)])


@given(optional(TEXTS))
def test_texts(values: list[str | None]) -> None:
    check_alike([*holders(values, arrow=pa.string()), pa.array(values, pa.large_string())])
    check_alike([values, json.loads(json.dumps(values)), pd.Series(values, dtype="category")])


@given(st.lists(st.none() | INTEGERS | st.floats(width=32) | TEXTS | st.booleans() | DAYS))
def test_mixtures_are_read_value_by_value(values: list[Any]) -> None:
    check = read_tokens(pd.Series(values, dtype=object), "text")
    each = [read_tokens([value], "text").values[0] for value in values]
    assert check.values.tolist() == each
    whole = read_tokens(values, "integer")
    assert whole.values.tolist() == [read_tokens([x], "integer").values[0] for x in values]


def test_a_date_beside_a_time_keeps_it() -> None:
    values = [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 12)]
    for column in (values, pd.Series(values, dtype=object)):
        assert read_tokens(column, "text").values.tolist() == ["2020-01-01", "2020-01-01T12:00:00"]


def test_one_value_decides_for_its_whole_column() -> None:
    assert token_kind(["35", 36.0, None, Decimal(37)]) == "integer"
    for odd in ("007", 0.5, True, "x", 2**63, b"x"):
        assert token_kind([35, odd]) == "text", odd
    assert token_kind([None, ""]) == "text"


def test_what_cannot_be_read_is_told_from_what_is_missing() -> None:
    read = read_tokens([b"x", ["a"], None, "a"], "text")
    assert read.faulty.tolist() == [True, True, False, False]
    assert read.missing.tolist() == [False, False, True, False]
    assert read_tokens(pa.array([b"\xff", None]), "text").faulty.tolist() == [True, False]
    assert read_tokens(pa.array([b"x", None]), "text").values.tolist() == ["x", ""]
    numbers = read_numbers(pd.Series(["x", "", "1e39", "2"]))
    assert numbers.faulty.tolist() == [True, False, True, False]
    assert numbers.missing.tolist() == [False, True, False, False]


@given(st.lists(st.none() | TEXTS | st.sampled_from(["True", "35.0", "2020-01-31 00:00:00"])))
def test_ids_of_text_are_never_merged(values: list[str | None]) -> None:
    expected = ["" if value is None else value for value in values]
    for column in (values, pd.Series(values, dtype=object), pa.array(values, pa.string())):
        assert read_ids(column, "text").values.tolist() == expected


@pytest.mark.parametrize(
    ("column", "kind", "faulty"),
    [
        (["7"], "integer", True),
        (pa.array(["7"]), "integer", True),
        ([2.0**53], "integer", True),
        (pd.Series([2.0**53]), "integer", True),
        (pa.array([2.0**24], pa.float32()), "integer", True),
        (np.array([7.0, np.nan]), "integer", False),
        ([True], "integer", True),
        ([7.0], "text", True),
        (pa.array([7.0]), "text", True),
        ([7], "text", False),
        (pa.array([7]), "text", False),
        ([2**63], "integer", True),
    ],
)
def test_ids_are_never_narrowed(column: Any, kind: Any, faulty: bool) -> None:
    assert bool(read_ids(column, kind).faulty.any()) == faulty
