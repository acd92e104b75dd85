"""Numbers with a unit, by a pattern."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from towers.errors import ConfigError
from towers.features.kinds import Numeric
from towers.features.number_form import NumberForm
from towers.features.reading import read_numbers

FEET = NumberForm("([0-9]+)' *(?:([0-9.]+)\")?", (12.0, 1.0))
POUNDS = NumberForm("([0-9.]+) ?lbs|([0-9.]+) ?kg", (1.0, 2.0))
MONEY = NumberForm(r"\$ ?([0-9,]+\.?[0-9]*)")
DAY = NumberForm("([0-9]{4})-([0-9]{2})-([0-9]{2}).*", (1.0, 0.1, 0.01))


@pytest.mark.parametrize(
    ("form", "value", "number"),
    [
        (FEET, "5' 8\"", 68.0),
        (FEET, " 6'", 72.0),
        (FEET, 70, 70.0),
        (FEET, "70", 70.0),
        (POUNDS, "137lbs", 137.0),
        (POUNDS, "50 kg", 100.0),
        (POUNDS, "137 stone", None),
        (POUNDS, "1.2.3lbs", None),
        (MONEY, "$1,234.50", 1234.5),
        (MONEY, "$,", None),
        (DAY, datetime.date(2020, 3, 4), 2020.34),
        (DAY, pd.Timestamp("2020-03-04 12:00"), 2020.34),
        (DAY, [1], None),
        (DAY, True, 1.0),
    ],
)
def test_values_are_read_by_the_pattern(form: NumberForm, value: Any, number: float | None) -> None:
    found = form.read(value)
    assert found == (number if number is None else pytest.approx(number))


@pytest.mark.parametrize("missing", [None, "", float("nan"), pd.NaT])
def test_missing_values_are_missing(missing: Any) -> None:
    number = POUNDS.read(missing)
    assert number is not None
    assert np.isnan(number)


@pytest.mark.parametrize("make", [list, pd.Series, pa.array, lambda x: np.array(x, dtype=object)])
def test_columns_are_read_alike_whatever_holds_them(make: Any) -> None:
    read = read_numbers(make(["137lbs", "140", None, "", "heavy"]), form=POUNDS)
    np.testing.assert_array_equal(read.values, [137.0, 140.0, np.nan, np.nan, np.nan])
    assert read.faulty.tolist() == [False] * 4 + [True]
    numbers = read_numbers(pd.Series([1.5, np.nan]), form=POUNDS)
    np.testing.assert_array_equal(numbers.values, [1.5, np.nan])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "([0-9]+"}, "expected a regular expression"),
        ({"pattern": "[0-9]+lbs"}, "at least one group"),
        ({"pattern": "([0-9]+)lbs", "factors": (1.0, 2.0)}, "as many factors"),
        ({"factors": (1.0,)}, "expected with a pattern"),
    ],
)
def test_patterns_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Numeric(column="weight", **settings)
