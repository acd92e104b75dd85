from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counted import counted
from tests.examples import examples
from towers.errors import DataError
from towers.features.encoder import Encoder
from towers.features.growth import grow_vocabulary, inherited_rows
from towers.features.kinds import Categorical, Features, History, MultiValued, Numeric
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Tokens, Vocabulary, fit_vocabulary

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    user=Features(
        features=(
            History(),
            Categorical(column="user"),
            Categorical(column="city", min_count=2),
            Categorical(column="device", hash_buckets=5),
            Numeric(column="age"),
            Numeric(column="income", buckets=4),
        )
    ),
    item=Features(features=(Categorical(column="item"), MultiValued(column="tags"))),
)
CITIES = ["Rome", "Oslo", "Lima", None]

Pairs = list[tuple[int, int]]
some_pairs = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=30, unique=True
)


def tables_of(pairs: Pairs, *, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Twelve users and items, whatever the pairs, in an order that the seed decides."""
    rows = np.arange(12)
    users = pd.DataFrame(
        {
            "user": rows,
            "city": [CITIES[row % 4] for row in rows],
            "device": "d",
            "age": rows * 1.5,
            "income": rows**2.0,
        }
    )
    tags = [[f"t{row % 5}", f"t{row % 3}"] for row in rows]
    items = pd.DataFrame({"item": [f"i{row}" for row in rows], "tags": tags})
    interactions = pd.DataFrame(
        [(user, f"i{item}") for user, item in pairs], columns=["user_id", "item_id"]
    )
    tables = {"users": users, "items": items, "interactions": interactions}
    return {name: table.sample(frac=1.0, random_state=seed) for name, table in tables.items()}


def fit(pairs: Pairs) -> Vocabulary:
    return fit_vocabulary(SCHEMA, **counted(**tables_of(pairs)))


def grow(vocabulary: Vocabulary, pairs: Pairs, *, seed: int = 0) -> Vocabulary:
    return grow_vocabulary(vocabulary, SCHEMA, **counted(**tables_of(pairs, seed=seed)))


def rows_of(vocabulary: Vocabulary) -> dict[tuple[str, Any], int]:
    """The row of every token of every learned space."""
    return {
        (name, token): row
        for name, space in vocabulary.spaces.items()
        if isinstance(space, Tokens)
        for token, row in zip(space.tokens.tolist(), space.rows.tolist(), strict=True)
    }


def counts(vocabulary: Vocabulary) -> dict[Any, int]:
    """How often each item was counted."""
    space = vocabulary.tokens("item.item")
    return dict(zip(space.tokens.tolist(), space.counts.tolist(), strict=True))


def assert_same(left: Vocabulary, right: Vocabulary) -> None:
    assert left.n_rows == right.n_rows
    assert list(left.spaces) == list(right.spaces)
    for one, other in zip(left.spaces.values(), right.spaces.values(), strict=True):
        if isinstance(one, Tokens):
            assert isinstance(other, Tokens)
            assert one.oov_row == other.oov_row
            for name in ("tokens", "rows", "counts"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        else:
            assert one == other


@given(old=some_pairs, new=some_pairs, seed=st.integers(0, 9))
@settings(max_examples=examples(20))
def test_old_rows_stay_and_new_tokens_get_rows_of_their_own(
    old: Pairs, new: Pairs, seed: int
) -> None:
    """They start from what stood for them; counts are today's, and else those there were."""
    before, today = fit(old), fit(new)
    after = grow(before, new, seed=seed)
    assert rows_of(before).items() <= rows_of(after).items()
    added = [row for token, row in rows_of(after).items() if token not in rows_of(before)]
    assert sorted(added) == list(range(before.n_rows, after.n_rows))
    assert set(rows_of(after)) == set(rows_of(before)) | set(rows_of(today))
    assert after.oov_rows == before.oov_rows
    for name in ("user.device", "user.age", "user.income"):
        assert after.spaces[name] == before.spaces[name]
    assert counts(after) == counts(before) | counts(today)
    rows = inherited_rows(after, n_old=before.n_rows)
    np.testing.assert_array_equal(rows[: before.n_rows], np.arange(before.n_rows))
    for (name, _), row in rows_of(after).items():
        assert rows[row] == (row if row < before.n_rows else after.tokens(name).oov_row)


@given(old=some_pairs, new=some_pairs, seed=st.integers(1, 9))
@settings(max_examples=examples(20))
def test_the_order_of_the_tables_and_the_same_tables_again_change_nothing(
    old: Pairs, new: Pairs, seed: int
) -> None:
    before = fit(old)
    assert_same(grow(before, old), before)
    once = grow(before, new)
    assert_same(once, grow(before, new, seed=seed))
    assert_same(grow(once, new), once)


@given(old=some_pairs, new=some_pairs)
@settings(max_examples=examples(10))
def test_a_grown_encoder_says_of_anyone_what_the_old_one_said(old: Pairs, new: Pairs) -> None:
    """Once a new token's row is read as that which stood for it; histories weigh anew."""
    before = fit(old)
    after = grow(before, new)
    origin = inherited_rows(after, n_old=before.n_rows)
    tables = tables_of(new)
    sides: tuple[tuple[Side, pd.DataFrame], ...] = (
        ("user", tables["users"]),
        ("item", tables["items"]),
    )
    for side, table in sides:
        first, second = (_encode(vocabulary, side, table) for vocabulary in (before, after))
        folded = np.zeros_like(first)
        np.add.at(folded.T, origin, second.T)
        np.testing.assert_allclose(folded, first, atol=1e-6)


def _encode(vocabulary: Vocabulary, side: Side, table: pd.DataFrame) -> np.ndarray[Any, Any]:
    inputs = input_dtypes(SCHEMA, vocabulary, side=side)
    columns = {name: table[name] for name in inputs if name in table}
    x = Encoder(SCHEMA, vocabulary, side=side)(pack(columns, inputs=inputs, size=len(table)))
    dense = np.zeros((len(table), vocabulary.n_rows), dtype=np.float32)
    dense[tuple(x.indices.numpy().T)] = x.values.numpy()
    return dense


def test_a_rare_token_gets_a_row_once_it_is_frequent() -> None:
    before = fit([(0, 0), (1, 1)])  # one user in Rome, one in Oslo
    after = grow(before, [(0, 0), (1, 1), (4, 1)])  # another in Rome
    assert before.tokens("user.city").tokens.tolist() == []
    assert after.tokens("user.city").tokens.tolist() == ["Rome"]
    assert after.tokens("user.city").oov_row == before.tokens("user.city").oov_row


def test_a_token_that_became_rare_keeps_its_row() -> None:
    before = fit([(0, 0), (4, 0)])
    after = grow(before, [(0, 0)])
    assert after.tokens("user.city").tokens.tolist() == ["Rome"]
    assert after.tokens("user.city").counts.tolist() == [2]


def test_integers_do_not_become_text() -> None:
    before = fit([(0, 0)])
    tables = tables_of([(0, 0)])
    tables["items"] = tables["items"].assign(item=range(12))
    tables["interactions"] = tables["interactions"].assign(item_id=0)
    with pytest.raises(DataError, match=r"item\.item: expected text.*received integers"):
        grow_vocabulary(before, SCHEMA, **counted(**tables))
