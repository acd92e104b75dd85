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

from pipelines.data.columns.tidy import tidy_bags, tidy_column, tidy_numbers, tidy_shown

TOKENS = st.one_of(st.none(), st.text(alphabet="abc", max_size=2))


def column(values: list[Any], dtype: Any = object) -> pd.Series:
    made: pd.Series = pd.Series(values, dtype=dtype)
    return made


@pytest.mark.parametrize(
    ("values", "dtype", "typed", "expected", "kept"),
    [
        (["1", "-2", ""], object, False, [1, -2, None], "Int64"),
        (["1.0", "", "35.00"], object, False, [1, None, 35], "Int64"),
        (["1", "02", ""], object, False, ["1", "02", None], "object"),
        (["1", "2", ""], object, True, ["1", "2", None], "object"),
        (["9223372036854775808"], object, False, ["9223372036854775808"], "object"),
        (["0.5", "1e3", ""], object, False, [0.5, 1000.0, None], "float64"),
        (["0.5", "12345678901234567"], object, False, ["0.5", "12345678901234567"], "object"),
        (["0.5", "1e400"], object, False, ["0.5", "1e400"], "object"),
        (["0.5", "0.30000000000000004"], object, False, [0.5, 0.30000000000000004], "float64"),
        (["True", "false", ""], object, False, [True, False, None], "boolean"),
        (["True", "no"], object, False, ["True", "no"], "object"),
        (["2020-01-31", ""], object, False, [datetime.date(2020, 1, 31), None], "object"),
        (["2020-02-31", ""], object, False, ["2020-02-31", None], "object"),
        (["", None], object, False, [None, None], "object"),
        ([2**60 + 2, None], object, True, [2**60 + 2, None], "Int64"),
        ([2**60 + 2, None], "Int64", True, [2**60 + 2, None], "Int64"),
        ([2**63], "uint64", True, [2**63], "uint64"),
        ([1.0, None], "float64", True, [1.0, None], "float64"),
        ([Decimal("1.50"), None], object, True, [1.5, None], "float64"),
        ([Decimal("1.00"), None], object, True, [1, None], "Int64"),
        ([True, None], "boolean", True, [True, None], "boolean"),
        ([1, "a", None], object, True, ["1", "a", None], "object"),
        (["a", None], "category", True, ["a", None], "object"),
        ([None, None], object, True, [None, None], "object"),
    ],
)
def test_columns_have_the_type_of_their_values(
    values: list[Any], dtype: Any, typed: bool, expected: list[Any], kept: str
) -> None:
    parsed = tidy_column(column(values, dtype), typed=typed)
    given = [None if pd.isna(value) else value for value in parsed.values.tolist()]
    assert given == expected
    assert [type(value) for value in given] == [type(value) for value in expected]
    assert str(parsed.values.dtype) == kept
    assert parsed.missing.tolist() == [value is None for value in expected]
    assert not parsed.faulty.any()


def test_lists_and_bytes_are_no_tokens_and_become_missing() -> None:
    parsed = tidy_column(column(["a", ["b"], b"c", None]), typed=True)
    assert parsed.faulty.tolist() == [False, True, True, False]
    assert parsed.values.tolist() == ["a", None, None, None]


def test_what_no_feature_reads_is_kept_but_integers_are_never_floats() -> None:
    lists = column([["b"], None])
    assert tidy_shown(lists, typed=True) is lists
    assert tidy_shown(column([2**60 + 2, None]), typed=True)[0] == 2**60 + 2
    assert tidy_shown(column(["3", ""]), typed=False).dtype == "Int64"


def test_numbers_stay_integers_where_they_are() -> None:
    integers = tidy_numbers(column(["1152921504606846978", "", "x"]))
    assert integers.values[0] == 1152921504606846978
    assert integers.faulty.tolist() == [False, False, True]
    assert tidy_numbers(column([3, 4])).values.tolist() == [3, 4]
    assert tidy_numbers(column(["3", "0.5"])).values.tolist() == [3.0, 0.5]
    assert tidy_numbers(column([True, None])).values[0] == 1.0


@pytest.mark.parametrize("value", ["1e39", 1e39, math.inf, "inf"])
def test_numbers_that_a_tower_cannot_hold_are_faulty(value: Any) -> None:
    assert tidy_numbers(column([value, 1.5])).faulty.tolist() == [True, False]


@given(st.lists(st.lists(TOKENS, max_size=4), max_size=6))
def test_bags_from_lists_keep_all_tokens_but_the_missing_ones(rows: list[list[Any]]) -> None:
    weights = [[float(i + 1) for i in range(len(row))] for row in rows]
    tokens, values = tidy_bags(column(rows), column(weights), separator="|")
    assert tokens.values.tolist() == [[t for t in row if t] for row in rows]
    assert values is not None
    assert values.values.tolist() == [
        [w for t, w in zip(row, given, strict=True) if t]
        for row, given in zip(rows, weights, strict=True)
    ]
    assert not tokens.faulty.any()
    assert not values.faulty.any()


def test_bags_from_text_are_cut_and_typed_over_the_whole_column() -> None:
    tokens, weights = tidy_bags(column(["1|2", "", None, "3||"]), None, separator="|")
    assert tokens.values.tolist() == [[1, 2], [], [], [3]]
    assert weights is None
    text, _ = tidy_bags(column(["1|2", "03"]), None, separator="|")
    assert text.values.tolist() == [["1", "2"], ["03"]]


def test_bags_take_arrays_tuples_and_single_values() -> None:
    tokens, _ = tidy_bags(column([np.array([1, 2]), (3,), 4, None]), None, separator="|")
    assert tokens.values.tolist() == [[1, 2], [3], [4], []]
    assert all(type(token) is int for bag in tokens.values for token in bag)


def test_bags_refuse_what_is_no_list() -> None:
    tokens, _ = tidy_bags(column([{"a": 1}, ["b", ["c"]], "d"]), None, separator="|")
    assert tokens.faulty.tolist() == [True, True, False]


def test_missing_weights_are_one_and_others_must_fit() -> None:
    tokens = column(["a|b", "a|b", "a|b", "a|b", "a", "a"])
    weights = column(["2|3", "", "2|", "2", "x", "inf"])
    _, parsed = tidy_bags(tokens, weights, separator="|")
    assert parsed is not None
    assert parsed.values[:3].tolist() == [[2.0, 3.0], [1.0, 1.0], [2.0, 1.0]]
    assert parsed.faulty.tolist() == [False, False, False, True, True, True]
