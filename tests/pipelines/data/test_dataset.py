from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pipelines.config import RunConfig, SplitConfig
from pipelines.data import encode_table as encode_table_module
from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.encode_table import encode_table
from pipelines.data.prepare import Prepared, prepare
from tests.examples import examples
from towers.features.encoder import Encoder
from towers.features.kinds import Features, History
from towers.features.packer import input_dtypes, pack
from towers.features.vocabulary import history_weights
from towers.typed import parse

N_USERS, N_ITEMS, LATEST = 7, 9, 3
HISTORY = {"kind": "history", "latest": LATEST, "popularity_power": 0.4}
CONFIG: dict[str, Any] = {
    "data": {
        "interactions": {"timestamp": "at", "weight": "weight"},
        "users": {"id": "user_id"},
        "items": {"id": "item_id"},
    },
    "user": {
        "features": [
            HISTORY,
            {"kind": "categorical", "column": "city"},
            {"kind": "numeric", "column": "age"},
        ]
    },
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id", "min_count": 2},
            {"kind": "multi_valued", "column": "tags"},
        ]
    },
}


def frames(kind: str = "text", seed: int = 0) -> dict[str, Any]:
    """Tables with users and items that have no interactions, and some items with only one."""
    rng = np.random.default_rng(seed)
    users = [f"user {n} é" for n in range(N_USERS)]
    items: list[Any] = [f"item {n}" if kind == "text" else n * 10**12 for n in range(N_ITEMS)]
    pairs = [(user, item) for user in users[:-1] for item in items[:-1] if rng.random() < 0.5]
    rng.shuffle(pairs)
    clicks = pd.DataFrame(
        {
            "user_id": [user for user, _ in pairs],
            "item_id": [item for _, item in pairs],
            "at": rng.permutation(len(pairs)),
            "weight": rng.uniform(0.5, 2.0, len(pairs)),
        }
    )
    return {
        "interactions": clicks,
        "users": pd.DataFrame(
            {
                "user_id": users,
                "city": ["Rome", None] * (N_USERS // 2) + ["Nowhere else"],
                "age": [np.nan, *range(1, N_USERS)],
            }
        ),
        "items": pd.DataFrame({"item_id": items, "tags": ["a|b", "", "b", "c", "d"] + ["a"] * 4}),
    }


def make_dataset(
    kind: str = "text", *, config: dict[str, Any] | None = None, seed: int = 0
) -> tuple[Dataset, pd.DataFrame]:
    """A dataset, and the clean interactions it was made from."""
    parsed = parse(RunConfig, config or CONFIG, where="config")
    with prepared_frames(parsed, frames(kind, seed)) as prepared:
        made = assemble_dataset(
            parsed.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=prepared.interactions("train"),
        )
        return made, prepared.frame("train")


@contextmanager
def prepared_frames(config: RunConfig, given: Mapping[str, pd.DataFrame]) -> Iterator[Prepared]:
    """Tables of which nothing is held out."""
    everything = SplitConfig(test_fraction=0.0, validation_fraction=0.0)
    with TemporaryDirectory() as folder:
        config = dataclasses.replace(config, split=everything)
        yield prepare(config, Path(folder, "prepared"), frames=given)


MADE, _ = make_dataset()


def histories(made: Dataset, interactions: pd.DataFrame) -> list[list[Any]]:
    """The external ids of each user's items, from old to new."""
    past = interactions.groupby("user_id", sort=False)["item_id"].agg(list)
    return [list(past.get(user, [])) for user in made.user_ids.tolist()]


def queries(made: Dataset) -> sparse.csr_array:
    """The bags of all users with their histories."""
    return made.query_bags(made.interactions.block(0))


def encoded(made: Dataset, *, side: Any, columns: dict[str, list[Any]]) -> Any:
    """The bags that the encoder gives for raw features, as a matrix."""
    inputs = input_dtypes(made.schema, made.vocabulary, side=side)
    size = len(next(iter(columns.values())))
    encoder = Encoder(made.schema, made.vocabulary, side=side, pasts=made.pasts)
    x = encoder(pack(columns, inputs=inputs, size=size))
    dense = np.zeros((size, made.vocabulary.n_rows), dtype=np.float32)
    dense[tuple(x.indices.numpy().T)] = x.values.numpy()
    return dense


@pytest.mark.parametrize(("kind", "dtype"), [("text", object), ("integer", np.int64)])
def test_ids_keep_their_type_and_their_order(kind: str, dtype: Any) -> None:
    made, _ = make_dataset(kind)
    assert made.user_ids.tolist() == frames(kind)["users"]["user_id"].tolist()
    assert made.item_ids.tolist() == frames(kind)["items"]["item_id"].tolist()
    assert made.item_ids.dtype == dtype


def test_interactions_are_weights_with_each_user_s_items_from_old_to_new() -> None:
    made, interactions = make_dataset()
    matrix = every_positive(made.interactions)
    assert matrix.shape == (N_USERS, N_ITEMS)
    assert matrix.dtype == np.float32
    given_rows = frames()["interactions"].sort_values("at")
    for row, user in enumerate(made.user_ids.tolist()):
        mine = given_rows[given_rows["user_id"] == user]
        entries = slice(matrix.indptr[row], matrix.indptr[row + 1])
        assert made.item_ids[matrix.indices[entries]].tolist() == mine["item_id"].tolist()
        np.testing.assert_allclose(matrix.data[entries], mine["weight"], rtol=1e-6)
    counts = interactions["item_id"].value_counts()
    assert made.interactions.item_counts.tolist() == [counts.get(item, 0) for item in made.item_ids]
    assert made.interactions.item_counts.dtype == np.int64


def test_every_user_and_item_is_encoded_by_the_graph() -> None:
    made, _ = make_dataset()
    users, items = frames()["users"], frames()["items"]
    raw = {"city": users["city"].tolist(), "age": users["age"].tolist()}
    expected = made.user_bags.toarray()
    expected[:, made.vocabulary.newcomer_row] = 1.0
    np.testing.assert_array_equal(expected, encoded(made, side="user", columns=raw))
    tags = [text.split("|") if text else [] for text in items["tags"]]
    raw = {"item_id": items["item_id"].tolist(), "tags": tags}
    np.testing.assert_array_equal(made.item_bags.toarray(), encoded(made, side="item", columns=raw))
    assert made.user_bags.dtype == made.item_bags.dtype == np.float32


def test_a_table_is_encoded_alike_in_one_batch_and_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = make_dataset()
    monkeypatch.setattr(encode_table_module, "ENCODE_BATCH", 2)
    parts, _ = make_dataset()
    np.testing.assert_array_equal(whole.user_bags.toarray(), parts.user_bags.toarray())
    np.testing.assert_array_equal(whole.item_bags.toarray(), parts.item_bags.toarray())


def test_a_table_that_was_kept_as_parquet_is_encoded_alike(tmp_path: Path) -> None:
    parsed = parse(RunConfig, CONFIG, where="config")
    made, _ = make_dataset()
    with prepared_frames(parsed, frames()) as prepared:
        users, items = prepared.users, prepared.items
    for side, table, bags in (
        ("user", users, made.user_bags),
        ("item", items, made.item_bags),
    ):
        table.to_parquet(tmp_path / "table.parquet")
        kept = pd.read_parquet(tmp_path / "table.parquet")
        again = encode_table(made.schema, made.vocabulary, side=side, table=kept)  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.toarray(), bags.toarray())


@pytest.mark.parametrize("kind", ["text", "integer"])
@pytest.mark.parametrize("seed", range(3))
def test_a_user_with_its_history_is_what_the_graph_encodes(kind: str, seed: int) -> None:
    made, interactions = make_dataset(kind, seed=seed)
    past = histories(made, interactions)
    assert max(map(len, past)) > LATEST  # older items are cut off
    assert np.any(made.history_rows < 0)  # rare items are unknown
    users = frames(kind)["users"]
    raw = {"history": past, "city": users["city"].tolist(), "age": users["age"].tolist()}
    np.testing.assert_allclose(
        queries(made).toarray(), encoded(made, side="user", columns=raw), rtol=1e-6
    )


def test_a_history_may_come_from_other_interactions() -> None:
    made, _ = make_dataset()
    starts = [0, 1, 1, 1, 1, 1, 1, 3]  # user 0 has item 2, and user 6 items 4 and 1
    matrix = sparse.csr_array((np.ones(3), [2, 4, 1], starts), shape=(N_USERS, N_ITEMS))
    past: list[list[Any]] = [[] for _ in range(N_USERS)]
    past[6], past[0] = made.item_ids[[4, 1]].tolist(), [made.item_ids[2]]
    expected = made.user_bags.toarray() + encoded(made, side="user", columns={"history": past})
    expected[:, made.vocabulary.default_user_row] = 0.0  # something is known of them all
    expected[:, made.vocabulary.newcomer_row] = np.diff(starts) == 0
    found = queries(dataclasses.replace(made, interactions=HeldInteractions(matrix)))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


IDS_ALONE, _ = make_dataset(
    config=CONFIG | {"user": {"features": [HISTORY | {"item_features": []}]}}
)


@given(
    past=st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=8), min_size=1, max_size=4),
    latest=st.integers(1, 9),
    half_life=st.none() | st.floats(0.5, 9.0),
)
@settings(max_examples=examples(50))
def test_a_history_holds_the_latest_items_that_bring_something_over_root_n(
    past: list[list[int]], latest: int, half_life: float | None
) -> None:
    users = np.repeat(np.arange(len(past)), [len(items) for items in past])
    items = np.array([item for mine in past for item in mine], dtype=np.int64)
    schema = IDS_ALONE.schema
    history = History(latest=latest, half_life=half_life, item_features=())
    schema = dataclasses.replace(schema, user=Features(features=(history,)))
    made = dataclasses.replace(IDS_ALONE, schema=schema)
    found = made.history_weights(history, users=users, items=items, n_users=len(past))
    brings = made.history_rows >= 0
    assert not brings.all()
    for query, mine in enumerate(past):
        kept = [item for item in mine if brings[item]][-latest:]
        entries = slice(found.indptr[query], found.indptr[query + 1])
        assert found.indices[entries].tolist() == kept
        expected = np.exp2(-np.arange(len(kept))[::-1] / (half_life or np.inf))
        expected /= np.linalg.norm(expected) or 1.0
        np.testing.assert_allclose(found.data[entries], expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_a_past_item_brings_its_features_weighed_by_how_rare_it_is() -> None:
    """One that training has not seen brings them too, as if it had been seen once."""
    assert MADE.past is not None
    space = MADE.vocabulary.tokens("item.item_id")
    weights = history_weights(np.append(space.counts, 0), power=0.4)
    weight = dict(zip(space.tokens.tolist(), weights[:-1], strict=True))
    expected = MADE.item_bags.toarray()
    expected[:, space.oov_row] = 0.0  # an unknown id says nothing
    for row, item in enumerate(MADE.item_ids.tolist()):
        expected[row] *= weight.get(item, weights[-1])
    np.testing.assert_allclose(MADE.past.bags.toarray(), expected, rtol=1e-6)
    assert np.any((MADE.history_rows < 0) & (expected.sum(axis=1) > 0))


def test_a_past_item_brings_only_the_features_that_are_asked_for() -> None:
    user = {"features": [HISTORY | {"item_features": []}, *CONFIG["user"]["features"][1:]]}
    made, interactions = make_dataset(config=CONFIG | {"user": user})
    space = made.vocabulary.tokens("item.item_id")
    assert made.past is not None
    assert set(made.past.bags.indices.tolist()) == set(space.rows.tolist())
    users = frames()["users"]
    raw = {"history": histories(made, interactions), "city": users["city"].tolist()}
    np.testing.assert_allclose(
        queries(made).toarray(),
        encoded(made, side="user", columns=raw | {"age": users["age"].tolist()}),
        rtol=1e-6,
    )


def test_items_that_training_does_not_know_are_in_no_history() -> None:
    rare = {"kind": "categorical", "column": "item_id", "min_count": 10**6}
    made, _ = make_dataset(config=CONFIG | {"item": {"features": [rare]}})
    assert made.history_rows.tolist() == [-1] * N_ITEMS
    expected = made.user_bags.toarray()
    expected[:, made.vocabulary.newcomer_row] = 1.0
    np.testing.assert_array_equal(queries(made).toarray(), expected)


def test_without_a_history_feature_users_are_their_other_features() -> None:
    plain = {"features": CONFIG["user"]["features"][1:]}
    made, _ = make_dataset(config=CONFIG | {"user": plain})
    assert queries(made) is made.user_bags
    assert made.history_rows.tolist() == [-1] * N_ITEMS


def test_a_column_that_happens_to_be_called_history_is_not_one() -> None:
    made, _ = make_dataset()
    users = frames()["users"].assign(history="a text about the user")
    again = encode_table(made.schema, made.vocabulary, side="user", table=users)
    np.testing.assert_array_equal(again.toarray(), made.user_bags.toarray())


def test_users_without_any_feature_but_their_history_start_empty() -> None:
    made, interactions = make_dataset(config=CONFIG | {"user": {"features": [HISTORY]}})
    assert made.user_bags.nnz == 0
    assert isinstance(made.user_bags, sparse.csr_array)
    raw = {"history": histories(made, interactions)}
    np.testing.assert_allclose(
        queries(made).toarray(), encoded(made, side="user", columns=raw), rtol=1e-6
    )
