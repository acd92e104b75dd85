"""What a column is taken for, by its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.guess.guess_kinds import guess_kind
from pipelines.guess.profile_columns import Column
from towers.features.number_form import NumberForm

N = 60
K = range(N)


def column(values: Any, *, name: str = "x", typed: bool = False) -> Column:
    return Column(name=name, place=0, values=pd.Series(list(values), dtype=object), typed=typed)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ([f"{100 + k}lbs" for k in K], 100.0),
        ([f"{k % 3 + 4}' {k % 12}\"" for k in K], 48.0),
        ([f"${1000 + k:,}.50" for k in K], 1000.5),
        ([f"{5 + k},{k % 90 + 10} €" for k in K], 5.1),
        ([f"EUR {k}" for k in K], 0.0),
        ([f"{k}%" for k in K], 0.0),
        ([f"2020-03-{k % 28 + 1:02d}" for k in K], 2020.25),
        ([f"April {k % 28 + 1}, {1990 + k % 9}" for k in K], 1990.0),
    ],
)
def test_numbers_with_units_and_dates_are_numeric_by_a_pattern(
    values: list[str], first: float
) -> None:
    guess = guess_kind(column(values))
    assert guess.kind == "numeric", guess
    form = NumberForm(guess.settings["pattern"], tuple(guess.settings.get("factors", ())))
    assert form.read(values[0]) == pytest.approx(first, abs=0.01)
    assert all(form.read(value) is not None for value in values)


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([f"a|b{k % 3}" for k in K], "multi_valued", "'|'"),
        (["x, y", "y, z", "x, z, y"] * 20, "multi_valued", "', '"),
        ([["a"], ["b", "c"]] * 30, "multi_valued", "lists"),
        ([np.arange(4) / 7 + k for k in K], "vector", "4 numbers"),
        ([f"[0.1, {k}.5, 0.3]" for k in K], "vector", "3 numbers"),
        (["true", "false"] * 30, "categorical", "true or false"),
        (["red", "blue", "green"] * 20, "categorical", "3 different"),
        ([f"0{k % 20 + 1000}" for k in K], "categorical", "20 different"),
        ([k % 5 for k in K], "categorical", "whole numbers"),
        ([k * 1.5 for k in K], "numeric", "from 0 to 88.5"),
        ([str(k % 31 + 18) for k in K], "numeric", "from 18"),
        ([f"http://x.org/{k}" for k in K], None, "addresses"),
        (["x"] * N, None, "same value"),
        ([None] * 59 + ["x"], None, "missing in 98.3%"),
        ([f"code-{k}" for k in K], None, "its own in nearly every row"),
        (list(range(5000, 5000 + N)), None, "an id"),
        ([f"one two three four five six {k}" for k in K], None, "free text"),
    ],
)
def test_kinds_and_reasons(values: list[Any], kind: str | None, why: str) -> None:
    guess = guess_kind(column(values))
    assert guess.kind == kind, guess
    assert why in guess.why


def test_units_that_differ_are_no_numbers() -> None:
    mixed = [f"{50 + k}{('kg', 'lbs')[k % 2]}" for k in [*range(20)] * 3]
    assert guess_kind(column(mixed)).kind == "categorical"
