from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.features.values import MISSING_INTEGER, integer_of, is_integer_text, number_of, text_of

DAY = datetime.date(2020, 1, 31)
NOON = datetime.datetime(2020, 1, 31, 12)


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (True, "true"),
        (np.bool_(False), "false"),
        ("True", "true"),
        ("FALSE", "false"),
        ("truE", "truE"),
        (35.0, "35"),
        (Decimal("35.00"), "35"),
        ("35.0", "35"),
        (-0.0, "0"),
        ("-0.0", "0"),
        (np.float32(0.1), "0.1"),
        (0.1, "0.1"),
        ("0.10", "0.1"),
        (1e-7, "0.0000001"),
        (Decimal("1E-7"), "0.0000001"),
        (2.0**53, "9007199254740992"),
        (2**70, "1180591620717411303424"),
        (math.inf, "inf"),
        ("007", "007"),
        ("007.0", "007.0"),
        ("1.2.3", "1.2.3"),
        ("+1.0", "+1.0"),
        ("1e3", "1e3"),
        (DAY, "2020-01-31"),
        (datetime.datetime(2020, 1, 31), "2020-01-31"),
        (np.datetime64("2020-01-31"), "2020-01-31"),
        ("2020-01-31 00:00:00", "2020-01-31"),
        (NOON, "2020-01-31T12:00:00"),
        ("2020-01-31 12:00", "2020-01-31T12:00:00"),
        ("2020-01-31T12:00:00.500", "2020-01-31T12:00:00.5"),
        (pd.Timestamp("2020-01-31T14:00+02:00"), "2020-01-31T12:00:00Z"),
        ("2020-01-31T14:00:00+0200", "2020-01-31T12:00:00Z"),
        ("2020-01-31T00:00:00Z", "2020-01-31T00:00:00Z"),
        ("9999-12-31 01:00", "9999-12-31T01:00:00"),
        ("2020-02-31 12:00", "2020-02-31 12:00"),
        ("", ""),
        (None, ""),
        (math.nan, ""),
        (np.float32("nan"), ""),
        (Decimal("nan"), ""),
        (pd.NA, ""),
        (pd.NaT, ""),
        (b"x", None),
        (["x"], None),
        ({"a": 1}, None),
    ],
)
def test_a_value_has_one_token(value: Any, token: str | None) -> None:
    assert text_of(value) == token
    if token:
        assert text_of(token) == token


@given(st.floats(-(2.0**53), 2.0**53))
def test_a_float_and_its_text_and_its_decimal_are_one_token(value: float) -> None:
    token = text_of(value)
    assert token is not None
    assert float(token) == value
    assert text_of(format(Decimal(repr(value)), "f")) == token
    assert text_of(Decimal(repr(value))) == token


@given(st.datetimes(), st.booleans())
def test_a_time_and_its_text_are_one_token(value: datetime.datetime, has_t: bool) -> None:
    token = text_of(value)
    assert text_of(value.isoformat(sep="T" if has_t else " ")) == token
    assert text_of(str(token)) == token


@pytest.mark.parametrize(
    ("value", "integer"),
    [
        (35, 35),
        (np.uint8(35), 35),
        (35.0, 35),
        ("35", 35),
        ("35.00", 35),
        (2**63 - 1, 2**63 - 1),
        (1152921504606846978, 1152921504606846978),
        ("", MISSING_INTEGER),
        (None, MISSING_INTEGER),
        (2**63, None),
        ("9223372036854775808", None),
        (35.5, None),
        (True, None),
        ("007", None),
        ("x", None),
        ([1], None),
    ],
)
def test_whole_numbers_of_64_bits_are_integers(value: Any, integer: int | None) -> None:
    assert integer_of(value) == integer


def test_integers_look_as_python_writes_them() -> None:
    assert all(map(is_integer_text, ("0", "-1", "9223372036854775807")))
    for text in ("", "-0", "01", "+1", "1.0", " 1", "1_0", "²", "٣", "9223372036854775808"):
        assert not is_integer_text(text), text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (np.float32(0.5), 0.5),
        (Decimal("1.50"), 1.5),
        ("1.50", 1.5),
        (" 1e3 ", 1000.0),
        ("007", 7.0),
        (True, 1.0),
        ("False", 0.0),
        ("inf", None),
        ("1e999", None),
        (10**400, None),
        ("1_000", None),
        ("0x10", None),
        ("x", None),
        (DAY, None),
        ([1.0], None),
    ],
)
def test_numbers_are_finite_and_booleans_one_and_zero(value: Any, number: float | None) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("value", [None, "", "NaN", " nan", math.nan, pd.NA, pd.NaT])
def test_a_missing_number_is_nan(value: Any) -> None:
    number = number_of(value)
    assert number is not None
    assert math.isnan(number)
