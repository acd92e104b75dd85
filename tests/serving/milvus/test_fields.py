"""The fields of a collection, and the values that are written to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.milvus.fields import LONGEST_LIST, LONGEST_TEXT, MOST_FIELDS, column_fields, entities
from serving.version.embeddings import Embeddings


def side(**columns: object) -> Embeddings:
    table = pd.DataFrame(columns)
    return Embeddings.from_pandas(table, np.zeros((len(table), 3), dtype=np.float32))


def test_values_and_where_there_are_none() -> None:
    published = side(id=[7, 8], year=[1.5, None], title=["x", None], tags=[["a", None], None])
    fields = column_fields(published)
    made = entities(
        fields, published.ids.to_numpy(), np.ones((2, 2), dtype=np.float32), column=published.column
    )
    for one in made:
        np.testing.assert_array_equal(one.pop("vector"), [1, 1])
    assert made == [
        {
            "id": 7,
            "year": 1.5,
            "year_known": True,
            "title": "x",
            "title_known": True,
            "tags": ["a"],
        },
        {
            "id": 8,
            "year": 0.0,
            "year_known": False,
            "title": "",
            "title_known": False,
            "tags": [],
        },
    ]


def test_a_name_that_milvus_does_not_take_is_a_number() -> None:
    published = side(
        **{"user id": [1], "in": [1], "jähr": [1], "x": [1], "x_known": [1], "column_1": [2]}
    )
    names = [field.name for field in column_fields(published)]
    assert names == ["column_0", "column_1", "column_2", "x", "column_4", "column_5"]


def test_no_column_takes_the_place_of_the_vectors() -> None:
    names = [field.name for field in column_fields(side(vector=[1], score=["x"]))]
    assert names == ["column_0", "score"]
    names = [field.name for field in column_fields(side(id=[1], vector=["x"]))]
    assert names == ["id", "column_1"]


def test_no_more_fields_than_milvus_takes() -> None:
    fields = column_fields(side(id=[1], **{f"c{n}": [1] for n in range(100)}))
    assert 1 + sum(1 if field.known is None else 2 for field in fields) <= MOST_FIELDS
    assert len(fields) == 1 + (MOST_FIELDS - 2) // 2


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        (pa.array(["x" * LONGEST_TEXT, None]), True),
        (pa.array(["é" * LONGEST_TEXT]), False),
        (pa.array([1.0, None]), True),
        (pa.array([1.0, np.inf]), False),
        (pa.array([2**63], pa.uint64()), False),
        (pa.array([], pa.int64()), True),
        (pa.array([["x"] * LONGEST_LIST, None]), True),
        (pa.array([["x"] * (LONGEST_LIST + 1)]), False),
        (pa.array([["x" * (LONGEST_TEXT + 1)]]), False),
        (pa.array([[2**63]], pa.list_(pa.uint64())), False),
    ],
)
def test_what_milvus_can_hold(values: pa.Array, holds: bool) -> None:
    table = pa.table({"id": np.arange(len(values)), "c": values})
    published = Embeddings(table, np.zeros((len(values), 2), dtype=np.float32))
    field = column_fields(published)[1]
    assert field.holds(values) is holds
