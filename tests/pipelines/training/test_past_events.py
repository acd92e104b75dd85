"""Histories of behaviours: what a query had done before its positives, and what serving encodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.engines import Plan
from pipelines.data.events import past_of
from pipelines.data.prepare import prepare
from pipelines.training.embed import embed
from pipelines.training.folds import FoldBatches
from towers.errors import ConfigError
from towers.features.encoder import Encoder
from towers.features.growth import grow_vocabulary
from towers.features.kinds import History
from towers.features.packer import input_dtypes, pack
from towers.features.vocabulary import Scalar
from towers.layers import FeatureTable
from towers.two_tower import TwoTower
from towers.typed import parse

N_USERS, N_ITEMS = 8, 12
HISTORIES: dict[str, dict[str, Any]] = {
    "history": {},
    "views": {"behaviours": ["view"], "latest": 3, "popularity_power": 0.0},
    "carts": {"behaviours": ["cart", "buy"], "vectors": "own"},
}
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "buy": {"role": "target"},
    "view": {"seen": False},
    "cart": {},
}


def config(*, timed: bool = True, histories: dict[str, Any] | None = None) -> RunConfig:
    number = {"kind": "numeric", "column": "number", "scale": "none"}
    past = histories or HISTORIES
    features = [{"kind": "history", "column": name} | given for name, given in past.items()]
    return parse(
        RunConfig,
        {
            "data": {
                "interactions": {"event": "did"} | ({"timestamp": "at"} if timed else {}),
                "behaviours": BEHAVIOURS,
                "users": {"id": "user_id"},
                "items": {"id": "item_id"},
            },
            "user": {"features": [number, *features]},
            "item": {
                "features": [
                    {"kind": "categorical", "column": "item_id", "min_count": 2},
                    {"kind": "numeric", "column": "number"},
                ]
            },
            "split": {"test_fraction": 0.0, "validation_fraction": 0.0},
            "training": {
                "folds": 3,
                "history_dropout": 0.0,
                "id_dropout": 0.0,
                "negatives": {"uniform": 4, "mined": 0},
            },
        },
        where="test",
    )


def events() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = [
        (user, item, did)
        for user in range(N_USERS)
        for item in range(N_ITEMS)
        for did in ("view", "cart", "buy")
        if rng.random() < 0.4
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "did"])
    frame["at"] = rng.permutation(len(frame)).astype(float)
    return frame


EVENTS = events()


def make(given: RunConfig, folder: Path, *, plan: Plan | None = None) -> Dataset:
    tables = {
        "interactions": EVENTS,
        "users": pd.DataFrame({"user_id": range(N_USERS), "number": np.arange(1.0, N_USERS + 1)}),
        "items": pd.DataFrame({"item_id": range(N_ITEMS), "number": np.arange(1.0, N_ITEMS + 1)}),
    }
    prepared = prepare(given, folder / "prepared", frames=tables, plan=plan)
    return assemble_dataset(
        given.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
    )


def past(user: int, *, before: float = np.inf, without: frozenset[int] = frozenset()) -> Any:
    """The items of each history, from old to new; views come back, others are left out."""
    mine = EVENTS[(EVENTS["user_id"] == user) & (EVENTS["at"] < before)].sort_values("at")
    keeps = {"views": frozenset[int]()} if before < np.inf else {}
    found = {}
    for name, given in HISTORIES.items():
        rows = mine[mine["did"].isin(given.get("behaviours", ["buy"]))]
        items = rows["item_id"].tolist()
        found[name] = [item for item in items if item not in keeps.get(name, without)]
    return found


def encoded(made: Dataset, histories: list[dict[str, Any]], users: list[int]) -> Any:
    inputs = input_dtypes(made.schema, made.vocabulary, side="user")
    encoder = Encoder(made.schema, made.vocabulary, side="user", pasts=made.pasts)
    columns: dict[str, Any] = {name: [one[name] for one in histories] for name in HISTORIES}
    columns["number"] = [user + 1.0 for user in users]
    x = encoder(pack(columns, inputs=inputs, size=len(users)))
    dense = np.zeros((len(users), made.vocabulary.n_rows), dtype=np.float32)
    dense[tuple(x.indices.numpy().T)] = x.values.numpy()
    return dense


@pytest.mark.parametrize("rows", [None, 5])
def test_a_user_is_the_sum_of_its_histories(tmp_path: Path, rows: int | None) -> None:
    plan = Plan(engine="disk", rows=rows) if rows else Plan()
    made = make(config(), tmp_path, plan=plan)
    expected = encoded(made, [past(user) for user in range(N_USERS)], list(range(N_USERS)))
    found = np.zeros_like(expected)
    for number in range(made.interactions.n_blocks):
        block = made.interactions.block(number)
        found[block.users] = made.query_bags(block).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    own = made.vocabulary.tokens("user.carts")
    assert np.abs(found[:, own.rows]).sum() > 0
    assert not set(own.rows.tolist()) & set(made.vocabulary.tokens("item.item_id").rows.tolist())


@pytest.mark.parametrize("timed", [True, False])
def test_a_query_holds_what_its_user_did_before_its_positives(tmp_path: Path, timed: bool) -> None:
    """Without times, all that the user did with other items."""
    given = config(timed=timed)
    made = make(given, tmp_path)
    bought = EVENTS[EVENTS["did"] == "buy"].set_index(["user_id", "item_id"])["at"]
    batches = FoldBatches.build(made, given.training, mined=None, seed=1)
    compared = 0
    for batch in batches.epoch(0):
        bags = _dense(batch, "user", made, int(batch["n_queries"]))
        items = _items(batch, made)
        number = made.vocabulary.spaces["user.number"]
        assert isinstance(number, Scalar)
        users = (bags[:, number.row] - 1).round().astype(int).tolist()
        wanted = []
        for query, user in enumerate(users):
            codes = batch["positive_item"][batch["positive_query"] == query]
            mine = frozenset(items[code] for code in codes.tolist())
            first = min(bought[user, item] for item in mine)
            wanted.append(past(user, before=first if timed else np.inf, without=mine))
        if not timed:  # the order of a history is then none that can be told
            rows = made.vocabulary.tokens("user.carts").rows
            bags, expected = bags[:, rows], encoded(made, wanted, users)[:, rows]
        else:
            expected = encoded(made, wanted, users)
            expected[:, made.vocabulary.newcomer_row] = 0.0  # who is placed after training
        np.testing.assert_allclose(bags, expected, rtol=1e-5, atol=1e-6)
        compared += sum(len(one["carts"]) for one in wanted)
    assert compared > N_USERS


def test_newcomers_are_trained_without_any_history(tmp_path: Path) -> None:
    given = config()
    made = make(given, tmp_path)
    training = parse(type(given.training), {"history_dropout": 0.999}, where="test")
    batches = FoldBatches.build(made, training, mined=None, seed=1)
    number = made.vocabulary.spaces["user.number"]
    assert isinstance(number, Scalar)
    for batch in batches.epoch(0):
        bags = _dense(batch, "user", made, int(batch["n_queries"]))
        assert set(np.flatnonzero(bags.any(axis=0)).tolist()) == {number.row}


def test_own_vectors_grow_with_new_items(tmp_path: Path) -> None:
    made = make(config(), tmp_path)
    users = pd.DataFrame({"user_id": [0, 1], "number": [1.0, 2.0]})
    items = pd.DataFrame({"item_id": [0, 99], "number": [1.0, 2.0]})
    counts = np.array([5, 5])
    grown = grow_vocabulary(
        made.vocabulary,
        made.schema,
        users=users,
        items=items,
        user_counts=counts,
        item_counts=counts,
    )
    old, new = made.vocabulary.tokens("user.carts"), grown.tokens("user.carts")
    assert set(new.tokens) - set(old.tokens) == {99}
    assert new.rows[new.tokens == 0] == old.rows[old.tokens == 0]
    assert new.rows[new.tokens == 99] >= made.vocabulary.n_rows


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({"views": {"behaviours": ["veiw"]}}, r"history 'views': .*received \['veiw'\]"),
        ({"a": {}, "b": {}}, "at most one history of the positives"),
    ],
)
def test_histories_that_cannot_be_are_refused(histories: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(histories=histories)


def _dense(batch: Any, side: str, made: Dataset, n: int) -> NDArray[np.float32]:
    bags = np.zeros((n, made.vocabulary.n_rows), dtype=np.float32)
    at = batch[f"{side}_indices"]
    bags[at[:, 0], batch["rows"][at[:, 1]]] = batch[f"{side}_values"]
    return bags


def _items(batch: Any, made: Dataset) -> list[int]:
    known = {bag.tobytes(): row for row, bag in enumerate(made.item_bags.toarray())}
    bags = _dense(batch, "item", made, len(batch["item_popularity"]))
    return [known[bag.tobytes()] for bag in bags]


@pytest.mark.parametrize("plan", [Plan(), Plan(engine="disk", rows=20)])
def test_users_that_are_validated_have_all_of_their_histories(tmp_path: Path, plan: Plan) -> None:
    dataset = make(config(), tmp_path, plan=plan)
    features = FeatureTable(dataset.vocabulary.n_rows, embedding_dim=4, init_scale=0.3, seed=1)
    model = TwoTower(features, margin=0.5, hardest=5, l2=0.0)
    everyone, some = embed(model, dataset)["user"], np.array([1, 4, N_USERS - 1])
    found = embed(model, dataset, only_users=some)["user"]
    np.testing.assert_allclose(found[some], everyone[some], rtol=1e-6)
    assert not found[np.setdiff1d(np.arange(N_USERS), some)].any()


def test_a_block_of_some_users_is_a_part_of_the_whole(tmp_path: Path) -> None:
    whole = make(config(), tmp_path).interactions.block(0)
    places = np.array([0, 2, N_USERS - 1])
    part = whole.take(places)
    assert part.users.tolist() == whole.users[places].tolist()
    assert part.times is not None
    assert whole.times is not None
    ends = [whole.times[slice(*whole.matrix.indptr[place : place + 2])] for place in places]
    np.testing.assert_array_equal(part.times, np.concatenate(ends))
    np.testing.assert_array_equal(part.seen().toarray(), whole.seen()[places].toarray())
    np.testing.assert_array_equal(part.moments, np.zeros(part.matrix.nnz))
    views = History(column="views", behaviours=("view",))
    seen = past_of(whole, views)[places].toarray()
    assert seen.any()
    np.testing.assert_array_equal(past_of(part, views).toarray(), seen)
