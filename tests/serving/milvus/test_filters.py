"""Filters as expressions: what is written, and what is left to be evaluated here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.milvus.fields import column_fields
from serving.milvus.filters import any_of, expression, literal
from serving.search.filters import parse_filter
from serving.version.embeddings import Embeddings

TABLE = pd.DataFrame(
    {
        "item_id": ["a", "b", "c"],
        "year": [1999, 2000, 2001],
        "price": pd.array([0.1, 0.5, None], dtype=pd.Float32Dtype()).to_numpy(
            np.float32, na_value=np.nan
        ),
        "good": [True, False, True],
        "genres": [["x"], [], ["x", "y"]],
        "weights": [[0.5], [], [0.25]],
    }
)
FIELDS = {
    field.column: field
    for field in column_fields(Embeddings.from_pandas(TABLE, np.zeros((3, 4), dtype=np.float32)))
}


def written(where: Any) -> str | None:
    return expression(parse_filter(where), FIELDS)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"column": "item_id", "equals": "a"}, 'item_id == "a"'),
        ({"column": "item_id", "equals": 'a"b\\'}, 'item_id == "a\\"b\\\\"'),
        ({"column": "year", "equals": 1999}, "year_known == true and year == 1999"),
        ({"column": "year", "in": [1999, 2001]}, "year_known == true and year in [1999, 2001]"),
        (
            {"column": "year", "range": {"gte": 1999, "lt": 2001}},
            "year_known == true and (year >= 1999 and year < 2001)",
        ),
        ({"column": "good", "equals": True}, "good_known == true and good == true"),
        ({"column": "genres", "equals": "x"}, 'array_contains(genres, "x")'),
        ({"column": "genres", "in": ["x", "y"]}, 'array_contains_any(genres, ["x", "y"])'),
        (
            {"not": {"column": "genres", "equals": "x"}},
            'not (array_contains(genres, "x"))',
        ),
        (
            {"or": [{"column": "genres", "equals": "x"}, {"column": "item_id", "equals": "b"}]},
            '(array_contains(genres, "x")) or (item_id == "b")',
        ),
    ],
)
def test_expression(where: Any, expected: str) -> None:
    assert written(where) == expected


def test_a_value_is_written_as_the_column_has_it() -> None:
    assert written({"column": "price", "equals": 0.1}) == (
        f"price_known == true and price == {float(np.float32(0.1))!r}"
    )


@pytest.mark.parametrize(
    "where",
    [
        {"column": "item_id", "equals": "line\nbreak"},
        {"column": "genres", "range": {"gte": "x"}},
        {"column": "good", "range": {"gte": False}},
        {"column": "weights", "equals": 0.5},
        {"column": "year", "in": []},
        {"column": "year", "in": list(range(1001))},
        {"column": "year", "equals": -(2**63)},
        {"and": [{"column": "year", "equals": 1}, {"column": "weights", "equals": 0.5}]},
        {"not": {"column": "weights", "equals": 0.5}},
    ],
)
def test_what_cannot_be_written_is_left_to_be_evaluated_here(where: Any) -> None:
    assert written(where) is None


def test_too_long_an_expression_is_left_too() -> None:
    assert written({"column": "item_id", "in": ["x" * 100] * 1000}) is None


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, "\0", "\u2028"])
def test_a_value_that_milvus_might_read_otherwise_is_not_written(value: Any) -> None:
    assert literal(value) is None


def test_ids_that_cannot_be_written_are_passed_over() -> None:
    field = FIELDS["item_id"]
    assert any_of(field, ["a", "\n"]) == 'item_id in ["a"]'
    assert any_of(field, ["\n"]) is None


def test_types_without_a_field() -> None:
    odd = pd.DataFrame(
        {
            "id": [1],
            "time": pd.to_datetime(["2020-01-01"]),
            "lists of lists": [[["x"]]],
            "nothing": pd.Series([None], dtype=object),
        }
    )
    fields = column_fields(Embeddings.from_pandas(odd, np.zeros((1, 4), dtype=np.float32)))
    assert [(field.column, field.type) for field in fields] == [("id", pa.int64())]
