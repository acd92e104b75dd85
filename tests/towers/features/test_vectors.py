"""Vectors: columns of lists of d numbers, and what they are to the encoder and to histories."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from tests.counted import counted
from towers.dense import Dense
from towers.errors import DataError, QueryError
from towers.features.encoder import Encoder
from towers.features.growth import grow_vocabulary
from towers.features.kinds import Categorical, Features, History, Vector
from towers.features.lists import read_vectors, vector_length
from towers.features.packer import input_dtypes, pack
from towers.features.past_items import PastItems
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Vocabulary, fit_vocabulary

Floats = NDArray[np.float32]
LISTS: list[list[float] | None] = [[1.0, -0.5, 3.0], None, [0.25, 2.0, 1e-3]]
EXPECTED = [[1.0, -0.5, 3.0], [np.nan] * 3, [0.25, 2.0, 1e-3]]
FORMS: dict[str, Callable[[], Any]] = {
    "lists": lambda: LISTS,
    "arrays": lambda: pd.Series([None if x is None else np.array(x) for x in LISTS]),
    "tuples": lambda: pd.Series([None if x is None else tuple(x) for x in LISTS]),
    "Arrow lists": lambda: pa.array(LISTS, pa.list_(pa.float32())),
    "Arrow lists of a fixed size": lambda: pa.array(LISTS, pa.list_(pa.float64(), 3)),
    "empty lists": lambda: [x or [] for x in LISTS],
    "JSON": lambda: ["" if x is None else json.dumps(x) for x in LISTS],
    "NumPy's text": lambda: pd.Series([None if x is None else str(np.array(x)) for x in LISTS]),
    "spaces": lambda: [None if x is None else " ".join(map(str, x)) for x in LISTS],
    "bars": lambda: [None if x is None else "|".join(map(str, x)) for x in LISTS],
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_the_same_however_they_are_written(form: str) -> None:
    column = FORMS[form]()
    read = read_vectors(column, size=3)
    np.testing.assert_allclose(read.values, EXPECTED, rtol=1e-6)
    assert read.values.dtype == np.float32
    assert not read.faulty.any()
    assert vector_length(column) == 3


def test_what_is_no_vector_is_a_fault_of_its_cell_alone() -> None:
    column = [[1.0, 2.0], [1.0], "1 x", 7.0, [3.0, None], "", [1.0, 2.0, 3.0], b"12"]
    read = read_vectors(column, size=2)
    assert read.faulty.tolist() == [False, True, True, True, False, False, True, True]
    np.testing.assert_array_equal(read.values[[0, 4]], [[1.0, 2.0], [3.0, np.nan]])
    assert np.isnan(read.values[read.faulty]).all()


USER = (History(column="past", latest=3), Vector(column="taste", scale="none"))
ITEM = (
    Vector(column="cover", scale="standard"),
    Categorical(column="item"),
    Vector(column="text", name="words"),
)
USERS = pd.DataFrame({"user": [1, 2, 3], "taste": [[1.0, 2.0], None, [np.nan, -3.0]]})
ITEMS = pd.DataFrame(
    {
        "item": list("abcd"),
        "cover": [[2.0, 5.0], [4.0, 5.0], None, [9.0, 9.0]],
        "text": [[3.0, 0.0, 4.0], [0.0, 0.0, 0.0], [1.0, np.nan, 0.0], None],
    }
)
PAIRS = pd.DataFrame({"user_id": [1, 1, 2, 3], "item_id": ["a", "b", "a", "c"]})
COVERS = np.array([[-1, 0], [1, 0], [0, 0], [6, 4]]) / np.sqrt(2)  # the last was never chosen
TEXTS = [[0.6, 0.0, 0.8], [0.0] * 3, [1.0, 0.0, 0.0], [0.0] * 3]


def schema(*, user: tuple[Any, ...] = USER, item: tuple[Any, ...] = ITEM) -> Schema:
    return Schema(
        user_id="user", item_id="item", user=Features(features=user), item=Features(features=item)
    )


def fit(of: Schema) -> Vocabulary:
    return fit_vocabulary(of, **counted(users=USERS, items=ITEMS, interactions=PAIRS))


def dense(of: Schema, side: Side, columns: dict[str, Any], past: PastItems | None = None) -> Dense:
    vocabulary = fit(of)
    inputs = input_dtypes(of, vocabulary, side=side)
    size = len(next(iter(columns.values())))
    found = Encoder(of, vocabulary, side=side, pasts={} if past is None else {"past": past}).dense(
        pack(columns, inputs=inputs, size=size)
    )
    assert found is not None
    return Dense(found.x.numpy(), found.first)


def items_dense(of: Schema) -> Dense:
    return dense(of, "item", {"cover": ITEMS["cover"], "words": ITEMS["text"]})


def test_numbers_are_scaled_as_the_feature_says_and_missing_ones_are_zero() -> None:
    found = items_dense(schema())
    np.testing.assert_allclose(found.x, np.column_stack([COVERS, TEXTS]), atol=1e-6)
    users = dense(schema(), "user", {"taste": USERS["taste"]})
    np.testing.assert_array_equal(users.x[:, :2], [[1.0, 2.0], [0.0, 0.0], [0.0, -3.0]])


def test_rows_of_vectors_lie_together_behind_all_other_columns() -> None:
    vocabulary = fit(schema())
    behind = vocabulary.default_user_row
    assert behind is not None
    assert vocabulary.dense_rows("user", "item") == range(behind - 7, behind)
    assert vocabulary.dense_rows("user") == range(behind - 7, behind - 5)
    assert items_dense(schema()).first == vocabulary.dense_rows("item").start


def test_the_order_of_features_does_not_matter_once_rows_are_given() -> None:
    """As where training goes on from a version."""
    vocabulary, other = fit(schema()), schema(item=ITEM[::-1])
    raw = {"cover": ITEMS["cover"], "words": ITEMS["text"]}
    inputs = input_dtypes(other, vocabulary, side="item")
    found = Encoder(other, vocabulary, side="item").dense(pack(raw, inputs=inputs, size=4))
    assert found is not None
    np.testing.assert_array_equal(found.x, items_dense(schema()).x)


@pytest.mark.parametrize("brought", [None, ("words",)])
def test_a_history_brings_the_vectors_of_its_items(brought: tuple[str, ...] | None) -> None:
    of = schema(user=(History(column="past", latest=2, item_features=brought), USER[1]))
    vocabulary, items = fit(of), items_dense(of)
    nothing = sparse.csr_array(np.zeros((4, vocabulary.n_rows), dtype=np.float32))
    past = PastItems.build(
        of,
        vocabulary,
        history=of.histories[0],
        ids=ITEMS["item"].to_numpy(),
        item_bags=nothing,
        dense=items,
    )
    weights = np.array([2.0, 1.0, 1.0, 1.0]) ** -0.4
    weights /= np.sqrt(np.mean(weights[[0, 1, 0, 2]] ** 2))
    columns = np.array([brought is None] * 2 + [True] * 3)
    bring = items.x * weights[:, np.newaxis] * columns
    np.testing.assert_allclose(past.dense.x, bring, rtol=1e-5)
    histories = [["a", "c", "d"], ["no such"], ["b", "a"]]
    found = dense(of, "user", {"past": histories, "taste": [None, [1, 2], None]}, past)
    known = [x for x, does in zip(bring, bring.any(axis=1), strict=True) if does]
    assert len(known) == (4 if brought is None else 2)
    latest = [[2, 3], [], [1, 0]] if brought is None else [[0, 2], [], [0]]
    expected = [bring[some].sum(axis=0) / np.sqrt(max(len(some), 1)) for some in latest]
    np.testing.assert_allclose(found.x[:, 2:], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found.x[:, :2], [[0, 0], [1, 2], [0, 0]])


def test_items_that_are_put_in_bring_their_vectors_too() -> None:
    of = schema()
    vocabulary = fit(of)
    encoder = Encoder(of, vocabulary, side="user")
    rows = vocabulary.dense_rows("item")
    x = np.arange(5.0, dtype=np.float32)[np.newaxis] + 1
    nothing = sparse.csr_array(np.zeros((1, vocabulary.n_rows), dtype=np.float32))
    fresh = PastItems.build(
        of,
        vocabulary,
        history=of.histories[0],
        ids=np.array(["new"], dtype=object),
        item_bags=nothing,
        dense=Dense(x, rows.start),
    )
    starts, none = np.array([0, 0]), np.empty(0, dtype=np.int64)
    encoder.fresh_items["past"].replace(
        tf.constant(["new"]), starts, none, np.empty(0, np.float32), fresh.dense.x
    )
    inputs = input_dtypes(of, vocabulary, side="user")
    found = encoder.dense(pack({"past": [["new", "a"], ["a"]]}, inputs=inputs, size=2))
    assert found is not None
    np.testing.assert_allclose(
        found.x[:, 2:], [fresh.dense.x[0] / np.sqrt(2), [0.0] * 5], rtol=1e-6
    )


def test_a_query_s_vector_of_another_length_is_refused() -> None:
    inputs = input_dtypes(schema(), fit(schema()), side="item")
    packed = pack({"words": [None]}, inputs=inputs, size=1)
    assert {name: x.shape for name, x in packed.items()} == {
        "cover": (1, 2),
        "item": (1,),
        "words": (1, 3),
    }
    wrong: dict[str, Any] = {
        "expected a list of 3 numbers, received one of 2": [1.0, 2.0],
        "expected a 32-bit number, received 'x'": [1.0, 2.0, "x"],
        "expected a list of 3 numbers, received one of 1": 5.0,
    }
    for message, value in wrong.items():
        with pytest.raises(QueryError, match=re.escape(f"feature 'words': {message}")):
            pack({"words": [value]}, inputs=inputs, size=1)


def test_a_column_without_vectors_and_one_of_another_length_are_refused() -> None:
    empty = ITEMS.assign(text=None)
    with pytest.raises(DataError, match="'text': expected lists of numbers, received none"):
        fit_vocabulary(schema(), **counted(users=USERS, items=empty, interactions=PAIRS))
    longer = ITEMS.assign(text=pd.Series([[1.0] * 4] * 4))
    tables = counted(users=USERS, items=longer, interactions=PAIRS)
    with pytest.raises(DataError, match="words: expected lists of 3 numbers, as in the earlier"):
        grow_vocabulary(fit(schema()), schema(), **tables)
    grown = grow_vocabulary(
        fit(schema()), schema(), **counted(users=USERS, items=ITEMS, interactions=PAIRS)
    )
    assert grown.dense_rows("user", "item") == fit(schema()).dense_rows("user", "item")
