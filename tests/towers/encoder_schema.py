"""A schema with every kind of feature, and a vocabulary for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tests.counted import counted
from towers.features.kinds import Categorical, Cross, Features, History, MultiValued, Numeric
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary, fit_vocabulary

CITIES = ["Rome", "\u00e9", "e\u0301", "日本 🎈", " ", "a|b", "nul\0"]
TAGS = ["x", "y", "z"]
N_ITEMS = 6
POWER = 0.4

USER_FEATURES: tuple[Any, ...] = (
    History(column="past", latest=3, popularity_power=POWER, half_life=1.5),
    Categorical(column="city"),
    Categorical(column="zone", min_count=2),
    Categorical(column="device", hash_buckets=5),
    Cross(columns=("city", "zone"), name="place"),
    MultiValued(column="tags", weights="tag_weights"),
    MultiValued(column="codes", weights="code_weights", combiner="mean"),
    MultiValued(column="words", hash_buckets=5, combiner="sum"),
    MultiValued(column="plain"),
    Numeric(column="age"),
    Numeric(column="price", scale="none"),
    Numeric(column="income", buckets=3),
)


def item_id(number: int, kind: str) -> Any:
    """Items 0 to 5 are in the vocabulary, others are not."""
    return number * 10**12 if kind == "integer" else f"item {number} é"


def make_schema(features: tuple[Any, ...] = USER_FEATURES) -> Schema:
    item = Features(features=(Categorical(column="item"),))
    return Schema(user_id="user", item_id="item", user=Features(features=features), item=item)


def make_vocabulary(schema: Schema, kind: str) -> Vocabulary:
    """Item i has i + 1 training interactions."""
    n = len(CITIES)
    users = pd.DataFrame(
        {
            "user": range(n),
            "city": CITIES,
            "zone": [-5, -5, 2**62, 2**62, 7, 7, 8],
            "device": ["a"] * n,
            "tags": [TAGS] * n,
            "codes": [[1, 2**60]] * n,
            "words": [[]] * n,
            "plain": [TAGS] * n,
            "age": np.linspace(20.0, 50.0, n),
            "price": 1.0,
            "income": np.arange(float(n)),
        }
    )
    pairs = [(user, item_id(item, kind)) for item in range(N_ITEMS) for user in range(item + 1)]
    pairs.append((n - 1, item_id(N_ITEMS - 1, kind)))  # the last user counts, too
    return fit_vocabulary(
        schema,
        **counted(
            users=users,
            items=pd.DataFrame({"item": [item_id(item, kind) for item in range(N_ITEMS)]}),
            interactions=pd.DataFrame(pairs, columns=["user_id", "item_id"]),
        ),
    )
