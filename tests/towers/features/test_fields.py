from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from towers.features.fields import Fields
from towers.features.kinds import Categorical, Features, History, MultiValued, Trend
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary, fit_vocabulary, rows_of

USERS = pd.DataFrame({"user_id": [1, 2], "city": ["a", "b"]})
ITEMS = pd.DataFrame({"item_id": [7, 8], "genres": ["x|y", "y"], "maker": ["m", "n"]})


def made(history: History) -> tuple[Schema, Vocabulary]:
    schema = Schema(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=(history, Categorical(column="city"))),
        item=Features(
            features=(
                Trend(),
                MultiValued(column="genres"),
                Categorical(column="item_id"),
                Categorical(column="maker"),
            )
        ),
    )
    ones = np.ones(2, dtype=np.int64)
    return schema, fit_vocabulary(
        schema, users=USERS, items=ITEMS, user_counts=ones, item_counts=ones
    )


@pytest.mark.parametrize(
    ("history", "of_users"),
    [
        (History(), ("user.city", "item.genres", "item.item_id", "item.maker")),
        (History(item_features=("genres",)), ("user.city", "item.genres", "item.item_id")),
        (History(vectors="own"), ("user.city", "user.history")),
    ],
)
def test_what_past_items_bring_are_fields_of_users(
    history: History, of_users: tuple[str, ...]
) -> None:
    schema, vocabulary = made(history)
    fields = Fields.build(schema, vocabulary)
    assert fields.user == of_users
    assert fields.item == ("item.genres", "item.item_id", "item.maker")
    for side, names in (("user", fields.user), ("item", fields.item)):
        of = fields.of_user if side == "user" else fields.of_item
        for place, name in enumerate(names):
            assert (of[rows_of(vocabulary.spaces[name])] == place).all()
