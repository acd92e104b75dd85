from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.search.filters import MOST_CONDITIONS, matches, parse_filter
from towers.errors import QueryError

YEARS = [1990, 1999, None, 2005]
GENRES = [["a", "b"], [], None, ["b"]]
COLUMNS = {
    "year": pa.array(YEARS),
    "genres": pa.array(GENRES),
    "title": pa.array(["x", "y", "z", None]),
    "new": pa.array([True, False, None, True]),
    "sold": pa.array(["True", "false", "35", "TRUE"]),
    "price": pa.array([0.5, 1.0, None, float("nan")]),
    "born": pa.array([datetime.date(2020, 1, day) for day in (1, 2, 3, 4)]),
    "tax": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("3.25")]),
    "day": pa.array([datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)]),
}


def column(name: str) -> pa.Array:
    if name not in COLUMNS:
        raise QueryError(f"no column {name}")
    return COLUMNS[name]


def rows(raw: Any) -> list[int]:
    return np.flatnonzero(matches(parse_filter(raw), column, size=4)).tolist()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"column": "year", "equals": 1999}, [1]),
        ({"column": "year", "equals": 1999.0}, [1]),
        ({"column": "year", "in": [1990, 2005, 3000]}, [0, 3]),
        ({"column": "year", "in": []}, []),
        ({"column": "year", "range": {"gte": 1999}}, [1, 3]),
        ({"column": "year", "range": {"gt": 1999, "lt": 2005}}, []),
        ({"column": "year", "range": {"gt": 1989, "lte": 1999}}, [0, 1]),
        ({"column": "year", "range": {"gt": 1989.5, "lte": 1998.5}}, [0]),
        ({"column": "year", "range": {"gte": 1998.5, "lt": 1999.5}}, [1]),
        ({"column": "genres", "equals": "b"}, [0, 3]),
        ({"column": "genres", "in": ["a", "c"]}, [0]),
        ({"column": "title", "equals": "y"}, [1]),
        ({"column": "year", "equals": "1999"}, [1]),
        ({"column": "price", "range": {"lt": "0.75"}}, [0]),
        ({"column": "new", "equals": "True"}, [0, 3]),
        ({"column": "new", "in": ["false", True]}, [0, 1, 3]),
        ({"column": "sold", "equals": True}, [0, 3]),
        ({"column": "sold", "equals": "True"}, [0, 3]),
        ({"column": "sold", "in": [False, "35.0"]}, [1, 2]),
        ({"column": "sold", "in": ["True", "35.0"]}, [0, 2, 3]),
        ({"column": "title", "in": ["y", "none"]}, [1]),
        ({"column": "sold", "equals": 35}, [2]),
        ({"column": "new", "equals": True}, [0, 3]),
        ({"column": "price", "range": {"lt": 1}}, [0]),
        ({"column": "day", "range": {"gte": "2020-01-03"}}, [2, 3]),
        ({"column": "born", "range": {"gte": "2020-01-03"}}, [2, 3]),
        ({"column": "born", "equals": "2020-01-02 00:00:00"}, [1]),
        ({"column": "tax", "equals": 2}, [1]),
        ({"column": "tax", "range": {"gt": 1.5}}, [1, 3]),
        ({"not": {"column": "year", "equals": 1999}}, [0, 2, 3]),
        ({"and": [{"column": "new", "equals": True}, {"column": "year", "equals": 2005}]}, [3]),
        ({"or": [{"column": "title", "equals": "z"}, {"column": "year", "equals": 1990}]}, [0, 2]),
    ],
)
def test_rows_that_match(raw: dict[str, Any], expected: list[int]) -> None:
    assert rows(raw) == expected


def test_a_filter_that_is_read_is_read_no_more() -> None:
    chosen = parse_filter({"not": {"column": "year", "in": [1999]}})
    assert parse_filter(chosen) == chosen


YEAR = st.sampled_from([1989, 1990, 1999, 2000, 2005])
LEAVES = st.one_of(
    YEAR.map(lambda year: ({"column": "year", "equals": year}, lambda v: v == year)),
    YEAR.map(
        lambda year: (
            {"column": "year", "range": {"lt": year}},
            lambda v: v is not None and v < year,
        )
    ),
    st.lists(YEAR, max_size=3).map(
        lambda some: ({"column": "year", "in": some}, some.__contains__)
    ),
)


def combine(inner: Any) -> Any:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda f: ({"and": [r for r, _ in f]}, lambda v: all(t(v) for _, t in f))),
        several.map(lambda f: ({"or": [r for r, _ in f]}, lambda v: any(t(v) for _, t in f))),
        inner.map(lambda f: ({"not": f[0]}, lambda v: not f[1](v))),
    )


@given(chosen=st.recursive(LEAVES, combine, max_leaves=8))
def test_any_combination_is_that_of_its_parts(chosen: Any) -> None:
    raw, test = chosen
    assert rows(raw) == [row for row, year in enumerate(YEARS) if test(year)]


def nested(depth: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {"column": "year", "equals": 1}
    for _ in range(depth):
        chosen = {"not": chosen}
    return chosen


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"column": "none", "equals": 1}, "no column none"),
        ({"column": "year", "equals": "x"}, "'year': expected a value of type int64, received"),
        ({"column": "year", "equals": True}, "type int64, received True"),
        ({"column": "year", "equals": 1999.5}, "type int64, received 1999.5"),
        ({"column": "year", "equals": 2**80}, "type int64, received"),
        (
            {"column": "title", "range": {"gte": 5}},
            "'title': expected numbers or dates for a range, received a column that was read as "
            "text, with values such as 'x'; ask with `equals` or `in`, or give the column numbers",
        ),
        ({"column": "genres", "range": {"gte": "a"}}, "read as text, with values such as 'a'"),
        ({"column": "new", "range": {"gte": False}}, "read as booleans"),
        ({"column": "title", "equals": "\ud800"}, "type string, received"),
        ({"column": "title", "in": ["x", "\ud800"]}, "type string, received"),
        ({"column": "new", "equals": 1}, "type bool, received 1"),
        ({"column": "day", "equals": "no day"}, "received 'no day'"),
        ({"column": "year", "range": {}}, "where.range: expected at least one of gt, gte, lt"),
        ({"column": "year", "range": {"above": 3}}, "where.range.above: Extra inputs"),
        ({"column": "year", "equals": None}, "where.equals"),
        ({"column": "year"}, "expected one of the keys equals, in, range, and, or, not"),
        ({"and": []}, "where.and: Tuple should have at least 1 item"),
        ({"or": [{"column": "year", "equals": 1}, 7]}, "where.or.1: expected one of the keys"),
        ("year = 1999", "expected one of the keys"),
        (None, "expected one of the keys"),
        (nested(10_000), "where"),
        ({"or": [nested(0)] * MOST_CONDITIONS}, f"at most {MOST_CONDITIONS} conditions, received"),
    ],
)
def test_what_is_no_filter_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        rows(raw)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
