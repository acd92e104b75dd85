from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.columns.parsed import are_integers, parse_numbers


def column(values: list[Any], dtype: Any = object) -> pd.Series:
    made: pd.Series = pd.Series(values, dtype=dtype)
    return made


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_read_exactly(values: list[float]) -> None:
    parsed = parse_numbers(column([repr(value) for value in values]))
    assert parsed.values.tolist() == values
    assert not parsed.faulty.any()
    assert not parsed.missing.any()


def test_numbers_tell_missing_from_unparsable() -> None:
    parsed = parse_numbers(column(["1.5", "", None, "NaN", "x", "inf", "1e999", "0x10", "1_000"]))
    assert parsed.values.dtype == np.float64
    assert parsed.values[0] == 1.5
    assert parsed.values[1:].isna().all()
    assert parsed.missing.tolist() == [False] + [True] * 3 + [False] * 5
    assert parsed.faulty.tolist() == [False] * 4 + [True] * 5


@pytest.mark.parametrize(
    "values",
    [
        column([1, None], "Int64"),
        column([1.0, None], "float64"),
        column(["1", None], "category"),
        column(["1", None], "string"),
        column([Decimal(1), None]),
        column([1, None], "int64[pyarrow]"),
        column([True, None], "boolean"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_numbers_come_from_every_type(values: pd.Series) -> None:
    parsed = parse_numbers(values)
    assert parsed.values[0] == 1.0
    assert math.isnan(parsed.values[1])
    assert parsed.missing.tolist() == [False, True]
    assert not parsed.faulty.any()


def test_numbers_are_neither_dates_nor_lists() -> None:
    dates = parse_numbers(column(["2020-01-01", None], "datetime64[ns]"))
    assert dates.faulty.tolist() == [True, False]
    assert parse_numbers(column([[1], 2])).faulty.tolist() == [True, False]


def test_integers_look_as_python_writes_them() -> None:
    assert are_integers(["0", "-1", "9223372036854775807"])
    for text in ("", "-0", "01", "+1", "1.0", " 1", "1_0", "²", "٣", "9223372036854775808"):
        assert not are_integers([text]), text
