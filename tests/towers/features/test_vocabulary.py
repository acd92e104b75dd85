from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counted import counted
from tests.examples import examples
from towers.features.kinds import Categorical, Features, History, MultiValued, Numeric
from towers.features.schema import Schema
from towers.features.values import MISSING_INTEGER
from towers.features.vocabulary import (
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Space,
    Tokens,
    Vocabulary,
    fit_vocabulary,
    history_weights,
)

ITEM_ID = Categorical(column="item")


def schema(*, user: tuple[Any, ...] = (History(),), item: tuple[Any, ...] = (ITEM_ID,)) -> Schema:
    return Schema(
        user_id="user", item_id="item", user=Features(features=user), item=Features(features=item)
    )


def clicks(pairs: list[tuple[Any, Any]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["user_id", "item_id"])


def fit_one(feature: Any, values: list[Any]) -> Space:
    """The space of a user feature, with one training user a value."""
    name = feature.column
    users = pd.DataFrame({"user": range(len(values)), name: pd.Series(values, dtype=object)})
    return fit(schema(user=(feature,)), users).spaces[f"user.{name}"]


def fit(of: Schema, users: pd.DataFrame) -> Vocabulary:
    pairs = clicks([(user, 7) for user in users["user"]])
    items = pd.DataFrame({"item": [7]})
    return fit_vocabulary(of, **counted(users=users, items=items, interactions=pairs))


def tokens_of(space: Space) -> dict[Any, int]:
    """The learned tokens, and how often each was counted."""
    assert isinstance(space, Tokens)
    return dict(zip(space.tokens.tolist(), space.counts.tolist(), strict=True))


def rows_of(space: Space) -> list[int]:
    if isinstance(space, Tokens):
        return [space.oov_row, *space.rows.tolist()]
    if isinstance(space, Scalar):
        return [space.row]
    assert not isinstance(space, Coordinates)
    size = space.buckets if isinstance(space, Hashed) else len(space.boundaries) + 1
    return list(range(space.first_row, space.first_row + size))


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40, unique=True
    ),
    min_count=st.integers(1, 4),
)
@settings(max_examples=examples(60))
def test_ids_are_known_from_min_count_training_interactions_on(
    pairs: list[tuple[int, int]], min_count: int
) -> None:
    of = schema(
        user=(History(), Categorical(column="user", min_count=min_count)),
        item=(Categorical(column="item", min_count=min_count),),
    )
    users = pd.DataFrame({"user": [f"u{user}" for user in range(10)]})
    items = pd.DataFrame({"item": np.arange(10) * 10**12})
    named = clicks([(f"u{user}", item * 10**12) for user, item in pairs])
    vocabulary = fit_vocabulary(of, **counted(users=users, items=items, interactions=named))
    for side, column in (("user", "user_id"), ("item", "item_id")):
        counts = Counter(named[column])
        expected = {token: n for token, n in counts.items() if n >= min_count}
        assert tokens_of(vocabulary.spaces[f"{side}.{side}"]) == expected
    assert vocabulary.tokens("item.item").is_integer
    assert not vocabulary.tokens("user.user").is_integer


WIDE = schema(
    user=(
        History(),
        Categorical(column="user"),
        Categorical(column="city", min_count=2),
        Categorical(column="device", hash_buckets=5),
        Numeric(column="age"),
        Numeric(column="income", buckets=4),
    ),
    item=(ITEM_ID, MultiValued(column="tags"), MultiValued(column="words", hash_buckets=3)),
)


def wide_tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    n = 30
    users = pd.DataFrame(
        {
            "user": rng.permutation(n).astype(np.int64),
            "city": [["Rome", "Oslo", "", None][i % 4] for i in range(n)],
            "device": "d",
            "age": rng.normal(size=n),
            "income": np.where(rng.random(n) < 0.2, np.nan, rng.lognormal(size=n)),
        }
    )
    tags = [[f"t{t}" for t in rng.integers(6, size=k)] for k in rng.integers(4, size=n)]
    items = pd.DataFrame({"item": [f"i{i}" for i in range(n)], "tags": tags, "words": tags})
    interactions = clicks([(u, f"i{i}") for u, i in rng.integers(n, size=(60, 2)).tolist()])
    return {"users": users, "items": items, "interactions": interactions}


def test_every_row_belongs_to_one_space() -> None:
    vocabulary = fit_vocabulary(WIDE, **counted(**wide_tables()))
    rows = [row for space in vocabulary.spaces.values() for row in rows_of(space)]
    assert sorted(rows) == list(range(vocabulary.n_rows))
    assert set(vocabulary.spaces) == {
        "user.user",
        "user.city",
        "user.device",
        "user.age",
        "user.income",
        "item.item",
        "item.tags",
        "item.words",
        "user.default user",
    }


def test_the_order_of_the_tables_does_not_matter() -> None:
    tables = wide_tables()
    shuffled = {name: table.sample(frac=1.0, random_state=1) for name, table in tables.items()}
    ours, theirs = (fit_vocabulary(WIDE, **counted(**given)) for given in (tables, shuffled))
    assert ours.n_rows == theirs.n_rows
    assert list(ours.spaces) == list(theirs.spaces)
    for space, other in zip(ours.spaces.values(), theirs.spaces.values(), strict=True):
        if isinstance(space, Tokens):
            assert isinstance(other, Tokens)
            assert tokens_of(space) == tokens_of(other)
            np.testing.assert_array_equal(space.tokens, other.tokens)
            assert rows_of(space) == rows_of(other)
        elif isinstance(space, Scalar):
            assert isinstance(other, Scalar)
            assert (space.mean, space.std) == pytest.approx((other.mean, other.std))
        else:
            assert space == other


def test_users_and_items_without_a_training_interaction_teach_nothing() -> None:
    of = schema(user=(History(), Numeric(column="age")), item=(ITEM_ID, MultiValued(column="tags")))
    users = pd.DataFrame({"user": ["a", "b"], "age": [30.0, 99.0]})
    items = pd.DataFrame({"item": [1, 2], "tags": [["x"], ["y"]]})
    pairs = clicks([("a", 1)])
    vocabulary = fit_vocabulary(of, **counted(users=users, items=items, interactions=pairs))
    assert tokens_of(vocabulary.spaces["item.item"]) == {1: 1}
    assert tokens_of(vocabulary.spaces["item.tags"]) == {"x": 1}
    assert vocabulary.spaces["user.age"] == Scalar(row=0, mean=30.0, std=1.0, limit=3.0)


def test_a_feature_token_counts_its_users_not_their_interactions() -> None:
    users = pd.DataFrame({"user": [1, 2, 3], "city": ["Rome", "Oslo", "Oslo"]})
    pairs = clicks([(1, 7), (1, 8), (1, 9), (2, 7), (3, 7)])
    vocabulary = fit_vocabulary(
        schema(user=(Categorical(column="city", min_count=2),)),
        **counted(users=users, items=pd.DataFrame({"item": [7, 8, 9]}), interactions=pairs),
    )
    assert tokens_of(vocabulary.spaces["user.city"]) == {"Oslo": 2}


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (Categorical(column="c"), ["b", "a", None, "", "b"], {"a": 1, "b": 2}),
        (
            Categorical(column="c"),
            ["\u00e9", "e\u0301", "日本", "🎈"],  # composed or not: two tokens
            {"\u00e9": 1, "e\u0301": 1, "日本": 1, "🎈": 1},
        ),
        (Categorical(column="c"), [2, pd.NA, 2, -3], {-3: 1, 2: 2}),
        (Categorical(column="c"), [2**62, 2**62 + 1], {2**62: 1, 2**62 + 1: 1}),
        (Categorical(column="c"), [MISSING_INTEGER, 5], {5: 1}),
        (Categorical(column="c", min_count=3), ["a", "a"], {}),
        (Categorical(column="c"), [None, None], {}),
        (MultiValued(column="c"), [["b", "a"], [], None, ["b"]], {"a": 1, "b": 2}),
        (MultiValued(column="c"), [np.array([4, 4]), np.array([], dtype=int)], {4: 2}),
        (MultiValued(column="c", min_count=2), [[1, 2], [2]], {2: 2}),
    ],
)
def test_tokens_are_counted(feature: Any, values: list[Any], expected: dict[Any, int]) -> None:
    space = fit_one(feature, values)
    assert tokens_of(space) == expected
    assert isinstance(space, Tokens)
    assert space.is_integer == (bool(expected) and all(isinstance(t, int) for t in expected))
    assert space.rows.tolist() == [space.oov_row + 1 + i for i in range(len(expected))]


def test_integers_stay_integers_and_text_stays_text() -> None:
    assert list(tokens_of(fit_one(Categorical(column="c"), [10, 9]))) == [9, 10]
    assert list(tokens_of(fit_one(Categorical(column="c"), ["10", "9"]))) == [9, 10]
    assert list(tokens_of(fit_one(Categorical(column="c"), ["10", "09"]))) == ["09", "10"]


def test_hashed_tokens_take_their_buckets_whatever_was_seen() -> None:
    for kind in (Categorical, MultiValued):
        assert fit_one(kind(column="c", hash_buckets=5), [["a"]]) == Hashed(first_row=0, buckets=5)


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [
        ([1.0, 3.0], 2.0, 1.0),
        ([1.0, np.nan, 3.0, 5.0], 3.0, np.sqrt(8 / 3)),
        ([4.0, 4.0], 4.0, 1.0),
        ([0.1] * 3, 0.1, 1.0),  # a standard deviation of 1e-17 is rounding
        ([1e9, 1e9 + 1], 1e9 + 0.5, 1.0),  # one number in float32
        ([], 0.0, 1.0),
        ([np.nan], 0.0, 1.0),
    ],
)
def test_a_number_is_scaled_by_its_mean_and_deviation(
    values: list[float], mean: float, std: float
) -> None:
    users = pd.DataFrame({"user": range(len(values)), "age": np.array(values, dtype=float)})
    age = Numeric(column="age", scale="standard")
    space = fit(schema(user=(age,)), users).spaces["user.age"]
    assert isinstance(space, Scalar)
    assert (space.mean, space.std) == pytest.approx((mean, std))


@pytest.mark.parametrize(
    ("values", "middle", "spread"),
    [
        ([1.0, 2.0, 3.0, 4.0, 1e30], 3.0, 2 / 1.349),  # one value far out changes nothing
        ([0.0, 0.0, 0.0, 0.0, 5.0], 1.0, 2.0),  # equal quartiles: the moments
        ([4.0, 4.0], 4.0, 1.0),
        ([np.nan], 0.0, 1.0),
    ],
)
def test_a_number_is_scaled_by_its_median_and_quartiles(
    values: list[float], middle: float, spread: float
) -> None:
    space = fit_one(Numeric(column="c", clip=2.5), values)
    assert isinstance(space, Scalar)
    assert (space.mean, space.std) == pytest.approx((middle, spread))
    assert space.limit == 2.5


def test_a_number_without_scale_stays_as_it_is() -> None:
    space = fit_one(Numeric(column="c", scale="none"), [5.0, 9.0])
    assert space == Scalar(row=0, mean=0.0, std=1.0)


def test_buckets_hold_equal_counts() -> None:
    values = np.random.default_rng(0).permutation(100).astype(float)
    space = fit_one(Numeric(column="c", buckets=4), values.tolist())
    assert isinstance(space, Buckets)
    assert space.boundaries == (24.75, 49.5, 74.25)
    counts = np.bincount(np.searchsorted(space.boundaries, values, side="right"))
    assert counts.tolist() == [25] * 4


@pytest.mark.parametrize(
    ("values", "boundaries"),
    [
        ([1.0, 1.0, 1.0, 2.0], (1.0, 1.25)),  # equal quantiles are one boundary
        ([5.0, 5.0], (5.0,)),
        ([np.nan], ()),
    ],
)
def test_buckets_that_would_be_empty_are_merged(
    values: list[float], boundaries: tuple[float, ...]
) -> None:
    space = fit_one(Numeric(column="c", buckets=4), values)
    assert space == Buckets(first_row=0, boundaries=boundaries)


@given(counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=8), power=st.floats(0.0, 2.0))
def test_history_weights_fall_with_popularity_and_have_unit_mean_square(
    counts: list[int], power: float
) -> None:
    weights = history_weights(np.array(counts), power=power).astype(np.float64)
    mean_square = sum(n * x**2 for n, x in zip(counts, weights, strict=True)) / sum(counts)
    assert mean_square == pytest.approx(1.0, rel=1e-4)
    for n, x in zip(counts, weights, strict=True):
        assert x / weights[0] == pytest.approx((n / counts[0]) ** -power, rel=1e-4)


def test_an_item_that_training_never_saw_weighs_as_one_seen_once() -> None:
    weights = history_weights(np.array([0, 1, 4]), power=0.5)
    assert weights[0] == weights[1] == pytest.approx(2 * weights[2])
    assert history_weights(np.array([0, 0]), power=0.5).tolist() == [1.0, 1.0]


def test_only_a_learned_space_has_tokens() -> None:
    vocabulary = fit_vocabulary(WIDE, **counted(**wide_tables()))
    assert vocabulary.tokens("user.city").tokens.tolist() == ["Oslo", "Rome"]
    with pytest.raises(TypeError, match=r"user\.age: expected Tokens, received Scalar"):
        vocabulary.tokens("user.age")
