from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.retrieval.explanation.feature_names import FeatureName, FeatureNames
from towers.features.kinds import Categorical, Features, History, Numeric
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Buckets, Hashed, Scalar, Tokens, Vocabulary

VOCABULARY = Vocabulary(
    spaces={
        "user.city": Tokens(
            tokens=np.array(["a", "b"], dtype=object),
            rows=np.array([9, 2]),  # as a vocabulary has it that has grown
            counts=np.array([1, 1]),
            oov_row=1,
        ),
        "user.age": Buckets(first_row=3, boundaries=(18.0, 30.5)),
        "user.income": Scalar(row=6, mean=0.0, std=2.0),
        "item.item_id": Tokens(
            tokens=np.array([5, 70], dtype=np.int64),
            rows=np.array([8, 10]),
            counts=np.array([1, 1]),
            oov_row=7,
        ),
        "item.brand": Hashed(first_row=11, buckets=2),
    },
    n_rows=13,
)
SCHEMA = Schema(
    user_id="User-ID",
    item_id="Item-ID",
    user=Features(
        features=(
            Categorical(column="city"),
            Numeric(column="age", buckets=3),
            Numeric(column="income"),
            History(column="past"),
        )
    ),
    item=Features(
        features=(
            Categorical(column="Item-ID", name="item_id"),
            Categorical(column="The Brand", name="brand", hash_buckets=2),
        )
    ),
)
NAMES = FeatureNames(VOCABULARY, schema=SCHEMA)
MISSING = np.iinfo(np.int64).min


def named(*rows: int, packed: Mapping[str, Any], side: Side) -> list[FeatureName]:
    """The names of rows, in order, with values of 0.5, 1.5 and so on."""
    given = np.array(rows, dtype=np.int64)
    order = NAMES.order(given)
    x = np.arange(len(rows), dtype=np.float64) + 0.5
    return NAMES.of(given[order], x[order], packed=packed, side=side)


def test_user_features_are_named() -> None:
    packed: dict[str, Any] = {
        "city": np.array(["b"], dtype=object),
        "age": np.array([20.0], np.float32),
        "income": np.array([7.25], np.float32),
        "past": np.array([[70, 5, MISSING]]),
    }
    assert named(10, 8, 6, 4, 2, packed=packed, side="user") == [
        FeatureName("city", "b", None, True, 4.5),
        FeatureName("age", "18 to 30.5", None, True, 3.5),
        FeatureName("income", "7.25", None, True, 2.5),
        FeatureName("past", "5", 5, True, 1.5),
        FeatureName("past", "70", 70, True, 0.5),
    ]


def test_ranges_are_open_at_the_ends() -> None:
    packed: dict[str, Any] = {"age": np.array([1.0], np.float32)}
    tokens = [named(row, packed=packed, side="user")[0].token for row in (3, 4, 5)]
    assert tokens == ["< 18", "18 to 30.5", ">= 30.5"]


def test_tokens_of_one_row_are_listed() -> None:
    brands = np.array([["one", "two", "", "three", "four"]], dtype=object)
    places = tf.strings.to_hash_bucket_fast(brands[0], 2).numpy()
    for place in (0, 1):
        (name,) = named(11 + place, packed={"brand": brands}, side="item")
        here = [one for one, at in zip(brands[0], places, strict=True) if one and at == place]
        assert (name.token, name.known) == (", ".join(here), True)


def test_unknown_tokens_share_a_name_without_a_label() -> None:
    cities = np.array([["c", "a", "", "d", "c"]], dtype=object)
    unknown, known = named(1, 9, packed={"city": cities}, side="user")
    assert (unknown.token, unknown.known) == ("c, d", False)
    assert (known.token, known.known) == ("a", True)
    (new,) = named(7, packed={"item_id": np.array([6])}, side="item")
    assert (new.field, new.token, new.label, new.known) == ("item_id", "6", None, False)


def test_fields_of_a_side_have_names_of_their_own() -> None:
    sides: tuple[tuple[Side, list[int], list[str]], ...] = (
        ("user", [9, 3, 6, 8], ["city", "age", "income", "past"]),
        ("item", [10, 12], ["item_id", "brand"]),
    )
    for side, rows, fields in sides:
        numbers = NAMES.fields(np.array(rows))
        assert [NAMES.field(number, side=side) for number in numbers.tolist()] == fields


def test_what_past_items_bring_is_named_by_the_history_and_the_feature() -> None:
    """Their tokens are not among the values given, which are ids alone."""
    packed = {"past": np.array([[70, 5]])}
    assert named(8, 12, 11, packed=packed, side="user") == [
        FeatureName("past", "5", 5, True, 0.5),
        FeatureName("past.brand", "bucket 0", None, True, 2.5),
        FeatureName("past.brand", "bucket 1", None, True, 1.5),
    ]
