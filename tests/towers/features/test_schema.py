from __future__ import annotations

import tomllib
from typing import Any

import pytest

from towers.errors import ConfigError
from towers.features.kinds import Categorical, Cross, Features, History, MultiValued, Numeric, Trend
from towers.features.schema import Schema, space_of
from towers.typed import parse

TOML = """
user_id = "user"
item_id = "item"

[user]
features = [
    { kind = "history" },
    { kind = "categorical", column = "city", min_count = 2 },
    { kind = "categorical", column = "device", hash_buckets = 8 },
    { kind = "numeric", column = "age", buckets = 4 },
]

[item]
features = [
    { kind = "categorical", column = "item" },
    { kind = "multi_valued", column = "tags", weights = "tag_weights", combiner = "mean" },
    { kind = "numeric", column = "price", scale = "none" },
]
"""
ITEM_ID = Categorical(column="item")


def schema(*, user: tuple[Any, ...] = (History(),), item: tuple[Any, ...] = (ITEM_ID,)) -> Schema:
    return Schema(
        user_id="user", item_id="item", user=Features(features=user), item=Features(features=item)
    )


def test_every_kind_is_read_from_toml_by_its_name() -> None:
    read = parse(Schema, tomllib.loads(TOML), where="schema.toml")
    assert read.features("user") == (
        History(column="history", latest=500, popularity_power=None),
        Categorical(column="city", min_count=2),
        Categorical(column="device", hash_buckets=8),
        Numeric(column="age", buckets=4),
    )
    assert read.features("item") == (
        ITEM_ID,
        MultiValued(column="tags", weights="tag_weights", combiner="mean"),
        Numeric(column="price", scale="none"),
    )
    assert (read.id_column("user"), read.id_column("item")) == ("user", "item")
    assert read.history == read.features("user")[0]
    assert read.item_id_feature == ITEM_ID


def test_the_history_reads_the_item_ids_and_every_other_feature_its_own_tokens() -> None:
    both = schema(user=(History(column="past"), Categorical(column="city")))
    spaces = [space_of(feature, side="user", schema=both) for feature in both.features("user")]
    assert spaces == ["item.item", "user.city"]
    assert space_of(ITEM_ID, side="item", schema=both) == "item.item"


def test_a_feature_may_have_a_name_that_is_not_its_columns() -> None:
    author = Categorical(column="Book-Author", name="book_author")
    tags = MultiValued(column="Tags", name="tags", weights="Tag weights", weights_name="tag_x")
    item_id = Categorical(column="item", name="item_id")
    named = schema(item=(item_id, author, tags, Numeric(column="year")))
    assert named.columns("item") == {
        "item_id": "item",
        "book_author": "Book-Author",
        "tags": "Tags",
        "year": "year",
        "tag_x": "Tag weights",
    }
    assert named.input_names("item") == list(named.columns("item"))
    assert (named.columns("user"), named.input_names("user")) == ({}, ["history"])
    assert (named.id_input("item"), named.id_input("user")) == ("item_id", None)
    spaces = [space_of(one, side="item", schema=named) for one in named.features("item")]
    assert spaces == ["item.item_id", "item.book_author", "item.tags", "item.year"]
    assert space_of(named.features("user")[0], side="user", schema=named) == "item.item_id"


def test_a_schema_without_history_needs_no_item_id() -> None:
    plain = schema(user=(Numeric(column="age"),), item=(Categorical(column="genre"),))
    assert plain.history is None
    assert plain.item_id_feature is None


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"item": (Categorical(column="genre"),)}, r"add a categorical .* column = 'item'"),
        ({"item": (Categorical(column="item", hash_buckets=9),)}, r"add a categorical"),
        ({"item": ()}, r"item\.features: expected at least one feature, received none"),
        ({"user": ()}, r"user\.features: expected at least one feature, received none"),
        ({"item": (ITEM_ID, History())}, r"item\.features: a history belongs to users"),
        ({"user": (History(), History(column="past"))}, r"at most one history"),
        ({"user": (History(), Numeric(column="history"))}, r"\['history'\] more than once"),
        (
            {"item": (ITEM_ID, Numeric(column="age"), Categorical(column="age"))},
            r"\['age'\] more than once",
        ),
        (
            {"item": (ITEM_ID, Numeric(column="a"), Categorical(column="a", name="b"))},
            r"each column once, received \['a'\]",
        ),
        (
            {"item": (ITEM_ID, Numeric(column="a"), Categorical(column="b", name="a"))},
            r"each name once, received \['a'\]",
        ),
        (
            {"item": (ITEM_ID, Numeric(column="w"), MultiValued(column="tags", weights="w"))},
            r"\['w'\] more than once",
        ),
    ],
)
def test_a_schema_that_cannot_work_is_refused(sides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schema(**sides)


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        ('{ kind = "text", column = "a" }', "user.features.0: Input tag 'text'"),
        ('{ column = "a" }', "user.features.0: Unable to extract tag"),
        ('{ kind = "categorical" }', "user.features.0.categorical.column: required"),
        ('{ kind = "numeric", column = "a", buckets = 1 }', "buckets: .* received 1"),
        ('{ kind = "numeric", column = "a", scale = "log" }', "scale: .* received 'log'"),
        ('{ kind = "history", latest = 0 }', "latest: .* received 0"),
        ('{ kind = "history", popularity_power = -0.1 }', "popularity_power: .* received -0.1"),
        ('{ kind = "categorical", column = "a", min_count = -1 }', "min_count: .* received -1"),
        ('{ kind = "categorical", column = "a", hash_buckets = 0 }', "hash_buckets: .* received 0"),
        ('{ kind = "multi_valued", column = "a", combiner = "max" }', "combiner: .* 'max'"),
    ],
)
def test_a_feature_that_cannot_work_is_refused(feature: str, problem: str) -> None:
    text = f"features = [{feature}]"
    raw = {"user_id": "u", "item_id": "i", "user": tomllib.loads(text), "item": {"features": []}}
    with pytest.raises(ConfigError, match=problem):
        parse(Schema, raw, where="schema.toml")


def test_the_fingerprint_tells_schemas_apart_and_nothing_else() -> None:
    digest = schema().fingerprint()
    assert digest == schema().fingerprint()
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    others = [
        schema(user=(History(latest=9),)),
        schema(user=(History(popularity_power=0.5),)),
        schema(item=(ITEM_ID, Numeric(column="price"))),
        schema(item=(ITEM_ID, Numeric(column="price", scale="none"))),
        schema(item=(Categorical(column="item", min_count=2),)),
    ]
    assert len({digest, *(other.fingerprint() for other in others)}) == 6


def test_a_history_brings_only_features_that_items_have() -> None:
    item = Features(features=(Categorical(column="item_id"), Categorical(column="genre")))

    def make(*names: str) -> Schema:
        user = Features(features=(History(item_features=names),))
        return Schema(user_id="user_id", item_id="item_id", user=user, item=item)

    assert make("genre").history == History(item_features=("genre",))
    with pytest.raises(ConfigError, match=r"\['genre', 'item_id'\], received \['colour'\]"):
        make("genre", "colour")


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ((History(), Trend()), (ITEM_ID,), "a trend belongs to items"),
        ((History(),), (ITEM_ID, Trend(), Trend(column="other")), "at most one trend"),
        ((History(),), (Trend(),), "other features than a trend"),
        ((History(),), (ITEM_ID, Trend(), Numeric(column="trend")), "received .'trend'."),
    ],
)
def test_a_trend_is_one_of_several_features_of_items(
    user: tuple[Any, ...], item: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        schema(user=user, item=item)


CITY = Categorical(column="city")


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        (
            (CITY, Cross(columns=("city", "shop"), name="both")),
            (ITEM_ID, Categorical(column="shop")),
            "cannot be crossed with 'shop' of the items: the towers keep users and items apart",
        ),
        (
            (CITY,),
            (ITEM_ID, Cross(columns=("item", "city"), name="both")),
            "cannot be crossed with 'city' of the users",
        ),
        (
            (CITY, Numeric(column="age"), Cross(columns=("city", "age"), name="both")),
            (ITEM_ID,),
            "categorical features of the users .'city'., received 'age'",
        ),
        (
            (CITY, Cross(columns=("city", "city"), name="both")),
            (ITEM_ID,),
            "expected each column once",
        ),
        (
            (CITY, Categorical(column="zone"), Cross(columns=("city", "zone"), name="city")),
            (ITEM_ID,),
            "each name once, received .'city'.",
        ),
    ],
)
def test_a_cross_is_of_categorical_columns_of_one_side(
    user: tuple[Any, ...], item: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        schema(user=user, item=item)


def test_a_cross_has_no_input_of_its_own() -> None:
    both = Cross(columns=("city", "zone"), name="both")
    read = schema(user=(CITY, Categorical(column="zone", name="area"), both))
    assert read.input_names("user") == ["city", "area"]
    assert read.columns("user") == {"city": "city", "area": "zone"}
    assert [feature.name for feature in read.crossed(both, side="user")] == ["city", "area"]


@pytest.mark.parametrize("columns", [("hour", "city"), ("hour", "warmth")])
def test_a_cross_of_the_moment_is_of_its_categorical_columns(columns: tuple[str, str]) -> None:
    moment = (
        Categorical(column="hour"),
        Numeric(column="warmth"),
        Cross(columns=columns, name="both"),
    )
    with pytest.raises(ConfigError, match=r"categorical features of the context \['hour'\]"):
        Schema(
            user_id="user",
            item_id="item",
            user=Features(features=(CITY,)),
            item=Features(features=(ITEM_ID,)),
            context=Features(features=moment),
        )
