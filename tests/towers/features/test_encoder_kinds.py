"""What the encoder makes of each kind of feature, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.counted import counted
from tests.towers.encoder_graphs import eager_graph
from tests.towers.encoder_schema import TAGS, make_schema, make_vocabulary
from tests.towers.reference_encoder import Bag, Query
from towers.features.encoder import Encoder
from towers.features.kinds import Categorical, Cross, Features, History, MultiValued, Numeric
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Schema
from towers.features.vocabulary import Buckets, Hashed, Scalar, Tokens, fit_vocabulary

HALF = 0.5**0.5
SUM = MultiValued(column="plain", combiner="sum")
MEAN = MultiValued(column="plain", combiner="mean")
PAST = History(column="past", popularity_power=0.0)
INCOME = Numeric(column="income", buckets=3)


def encode_one(feature: Any, query: Query) -> tuple[Bag, Any]:
    """The bag of a query by one feature, rows counted from the space's first; and the space.

    The default user and newcomers are left out, of whom `test_encoder` tells.
    """
    item_space = isinstance(feature, History)
    schema = make_schema((feature,))
    vocabulary = make_vocabulary(schema, "integer")
    name = "item.item" if item_space else f"user.{feature.column}"
    space: Any = vocabulary.spaces[name]
    inputs = input_dtypes(schema, vocabulary, side="user")
    encoder = Encoder(schema, vocabulary, side="user")
    packed = pack({k: [v] for k, v in query.items()}, inputs=inputs, size=1)
    [bag] = eager_graph(encoder)(packed)
    first = {Tokens: "oov_row", Scalar: "row"}.get(type(space), "first_row")
    for row in (vocabulary.default_user_row, vocabulary.newcomer_row):
        bag.pop(row if row is not None else -1, None)
    return {row - getattr(space, first): x for row, x in bag.items()}, space


@pytest.mark.parametrize(
    ("feature", "known", "missing", "unknown"),
    [
        (Categorical(column="city"), ("Rome", {2: 1.0}), None, ("?", {0: 1.0})),
        (Categorical(column="zone", min_count=2), (7, {2: 1.0}), None, (8, {0: 1.0})),
        (Categorical(column="device", hash_buckets=5), ("a", {4: 1.0}), "", ("🎈", {2: 1.0})),
        (MultiValued(column="plain"), (["x", "z"], {1: HALF, 3: HALF}), [], (["?"], {0: 1.0})),
        (SUM, (["x", "x"], {1: 2.0}), None, (["?", "!"], {0: 2.0})),
        (MEAN, (["x"], {1: 1.0}), [None], (["?", "!", "y"], {0: 2 / 3, 2: 1 / 3})),
        (Numeric(column="age", scale="standard"), (50.0, {0: 1.5}), math.nan, None),
        (Numeric(column="age", clip=2.0), (1e30, {0: 2.0}), math.nan, (-1e30, {0: -2.0})),
        (Numeric(column="price", scale="none"), (-2.5, {0: -2.5}), None, None),
        (INCOME, (2.0, {1: 1.0}), math.nan, (1e30, {2: 1.0})),
        (INCOME, (1.9, {0: 1.0}), None, (-1e30, {0: 1.0})),
        (PAST, ([0, 10**12], {1: HALF, 2: HALF}), None, ([5], {})),
        (PAST, ([5, 0], {1: 1.0}), [], ([5, None], {})),
    ],
)
def test_each_kind_treats_missing_and_unknown_values_as_the_schema_says(
    feature: Any, known: Any, missing: Any, unknown: Any
) -> None:
    assert encode_one(feature, {feature.column: missing})[0] == {}
    assert encode_one(feature, {})[0] == {}
    for value, expected in filter(None, [known, unknown]):
        assert encode_one(feature, {feature.column: value})[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        ("sum", {1: 3.0, 2: -4.0}),
        ("mean", {1: 3 / 7, 2: -4 / 7}),
        ("sqrtn", {1: 3 / 5, 2: -4 / 5}),
    ],
)
def test_weights_are_combined(combiner: Any, expected: Bag) -> None:
    feature = MultiValued(column="tags", weights="w", combiner=combiner)
    bag, _ = encode_one(feature, {"tags": ["x", None, "y"], "w": [3.0, 9.0, -4.0]})
    assert bag == pytest.approx(expected)


def test_a_weight_that_is_missing_or_not_finite_counts_as_one() -> None:
    schema = make_schema((MultiValued(column="tags", weights="w", combiner="sum"),))
    encoder = Encoder(schema, make_vocabulary(schema, "text"), side="user")
    weights = np.array([[2.0, np.nan, np.inf]], dtype=np.float32)
    [bag] = eager_graph(encoder)({"tags": np.array([TAGS], dtype=object), "w": weights})
    assert list(bag.values()) == [2.0, 1.0, 1.0]


def test_the_history_weighs_items_by_popularity_and_keeps_the_latest_known() -> None:
    past = [3 * 10**12, 0, 5, 10**12, 2 * 10**12]  # known but for 5, with 4, 1, 2, 3 interactions
    bag, space = encode_one(History(column="past", latest=3, popularity_power=0.5), {"past": past})
    assert isinstance(space, Tokens)
    assert list(bag) == [1, 2, 3]
    np.testing.assert_allclose(
        np.array([*bag.values()]) / bag[1], [1.0, 2**-0.5, 3**-0.5], rtol=1e-5
    )


def test_a_vocabulary_of_another_schema_is_refused() -> None:
    ours = make_schema((Numeric(column="age"),))
    theirs = make_schema((Categorical(column="age"),))
    with pytest.raises(TypeError, match="age: a categorical feature cannot read Scalar"):
        Encoder(theirs, make_vocabulary(ours, "text"), side="user")


def test_an_infinite_number_has_no_scaled_value_but_an_end_bucket() -> None:
    schema = make_schema((Numeric(column="age"), INCOME))
    vocabulary = make_vocabulary(schema, "text")
    space = vocabulary.spaces["user.income"]
    assert isinstance(space, Buckets)
    numbers = np.array([np.inf, -np.inf], dtype=np.float32)
    graph = eager_graph(Encoder(schema, vocabulary, side="user"))
    top = space.first_row + len(space.boundaries)
    assert graph({"age": numbers, "income": numbers}) == [{top: 1.0}, {space.first_row: 1.0}]


def test_a_hashed_cross_has_the_bucket_of_its_tokens_together() -> None:
    features = (
        Categorical(column="zone"),
        Categorical(column="device", hash_buckets=5),
        Cross(columns=("device", "zone"), name="both", hash_buckets=100),
    )
    schema = make_schema(features)
    vocabulary = make_vocabulary(schema, "integer")
    encoder = Encoder(schema, vocabulary, side="user")
    given = {"zone": [7, 7, -5, None], "device": ["a", "é", "a", "a"]}
    inputs = input_dtypes(schema, vocabulary, side="user")
    assert set(inputs) == {"zone", "device"}
    x = encoder(pack(given, inputs=inputs, size=4))
    space = vocabulary.spaces["user.both"]
    assert isinstance(space, Hashed)
    query, row = x.indices.numpy().T
    rows = [row[(query == one) & (row >= space.first_row)].tolist() for one in range(4)]
    together = ["a & 7", "é & 7", "a & -5"]
    buckets = tf.strings.to_hash_bucket_fast(together, 100).numpy() + space.first_row
    assert rows == [*([bucket] for bucket in buckets.tolist()), []]


def test_columns_of_the_moment_are_crossed() -> None:
    context = (
        Categorical(column="hour"),
        Categorical(column="day"),
        Cross(columns=("day", "hour"), name="moment"),
    )
    user, item = Categorical(column="city"), Categorical(column="item_id")
    schema = Schema(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=(user,)),
        item=Features(features=(item,)),
        context=Features(features=context),
    )
    tables = counted(
        users=pd.DataFrame({"user_id": [1], "city": ["Rome"]}),
        items=pd.DataFrame({"item_id": [5]}),
        interactions=pd.DataFrame({"user_id": [1], "item_id": [5]}),
    )
    moments = pd.DataFrame({"hour": [7, 20, 7, 9], "day": ["mon", "mon", None, "sun"]})
    seen = np.array([2, 1, 1, 0])
    vocabulary = fit_vocabulary(schema, **tables, contexts=moments, context_counts=seen)
    space = vocabulary.tokens("user.moment")
    assert space.tokens.tolist() == ["mon & 20", "mon & 7"]
    inputs = input_dtypes(schema, vocabulary, side="user")
    assert set(inputs) == {"city", "hour", "day"}
    asked = {"city": [None] * 4, "hour": [7, 20, None, 9], "day": ["mon", "mon", "mon", "sun"]}
    x = tf.sparse.to_dense(
        Encoder(schema, vocabulary, side="user")(pack(asked, inputs=inputs, size=4))
    ).numpy()
    rows = [*space.rows.tolist(), space.oov_row]
    assert x[:, rows].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
