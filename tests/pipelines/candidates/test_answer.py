from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from pipelines.candidates import sources as candidate_sources
from pipelines.candidates.answer import AudienceTable, CandidateTable
from pipelines.candidates.settings import load_settings
from serving.version.embeddings import Embeddings
from serving.version.seen import Seen
from tests.pipelines.candidates.candidates_support import World, best

FIRST = 2**60
LATEST = 3


def candidates(world: Any, table: pa.Table, **changes: Any) -> Any:
    """The rows of the answer, and what was rejected."""
    settings = load_settings(None, changes={"latest": LATEST, "neighbours": 8} | changes)
    answer = CandidateTable(world, settings, schema=table.schema)
    answered = answer(table.select(answer.columns))
    assert answered.table.schema == answer.schema
    return answered.table.to_pandas(), answered.rejected.to_pylist()


def only(channel: str, k: int) -> dict[str, Any]:
    return {"k": k, "channels": [{"name": channel, "quota": k}]}


def rows(world: World, frame: Any, user: int) -> list[int]:
    found: list[int] = world.items.ids.find(
        frame[frame["user_id"] == user]["item_id"].to_numpy()
    ).tolist()
    return found


def test_i2i_starts_from_the_last_items_of_the_history_given() -> None:
    world = World.random()
    ids = world.items.ids.to_numpy()
    history = [*ids[[9, 30, 12, 44]], "unknown", ids[9], ids[5]]
    latest = [5, 9, 44]
    table = pa.table({"user_id": [FIRST + 2, 1], "history": [history, history]})
    frame, _ = candidates(world, table, **only("i2i", 6))
    out = [9, 30, 12, 44, 5]
    assert rows(world, frame, 1) == best(world.i2i(latest), without=out, depth=6)[0].tolist()
    both = np.append(out, world.has(2))
    wanted = best(world.i2i(latest), without=both, depth=6)[0]
    assert rows(world, frame, FIRST + 2) == wanted.tolist()


def test_i2i_starts_from_the_rarest_items_of_a_user_without_a_history() -> None:
    world = World.random()
    history = pa.array([None, ["item 4"]], pa.list_(pa.string()))
    table = pa.table({"user_id": [FIRST + 2, 1], "history": history})
    frame, _ = candidates(world, table, **only("i2i", 6))
    has, counts = world.has(2), world.popularity()
    assert len(has) > LATEST
    rarest = has[np.lexsort((-has, counts[has]))[:LATEST]]
    wanted = best(world.i2i(rarest), without=has, depth=6)[0]
    assert rows(world, frame, FIRST + 2) == wanted.tolist()
    assert len(rows(world, frame, 1)) == 6


def test_k_is_honoured_whatever_is_left_out() -> None:
    world = World.random()
    users = world.users_table(slice(None))
    frame, _ = candidates(world, users, k=20)
    assert (frame.groupby("user_id").size() == 20).all()
    frame, _ = candidates(world, users, k=50)
    for user in range(world.seen.matrix.shape[0]):
        found = rows(world, frame, FIRST + user)
        assert sorted([*found, *world.has(user)]) == list(range(50))
    frame, _ = candidates(world, users, k=50, exclude_seen=False)
    assert (frame.groupby("user_id").size() == 50).all()


def test_what_was_judged_is_left_out_and_nothing_starts_from_it() -> None:
    world = World.random()
    judged = np.zeros(world.seen.matrix.shape, dtype=np.bool_)
    judged[2] = np.arange(50) % 3 == 0
    judged[2, world.has(2)] = False
    table = world.users_table([2])
    before, _ = candidates(world, table, k=50, channels=[{"name": "i2i", "quota": 50}])
    seen = Seen(world.seen.matrix, scipy.sparse.csr_array(judged))
    after, _ = candidates(
        dataclasses.replace(world, seen=seen), table, k=50, channels=[{"name": "i2i", "quota": 50}]
    )
    judged_ids = set(world.items.ids.take(np.flatnonzero(judged[2])))
    kept = before[~before["item_id"].isin(judged_ids)]
    assert after["item_id"].tolist() == kept["item_id"].tolist()
    np.testing.assert_allclose(after["score"], kept["score"], rtol=1e-5)
    assert len(kept) == len(before) - judged.sum()


def test_channels_come_in_order_with_their_own_scores() -> None:
    world = World.random()
    frame, _ = candidates(world, world.users_table([6]), k=20)
    assert (
        frame["channel"].tolist() == ["u2i"] * 12 + ["i2i"] * 4 + ["u2u2i"] * 2 + ["popularity"] * 2
    )
    assert frame["rank"].tolist() == list(range(1, 21))
    for channel, scores in (
        ("u2i", world.u2i(6)),
        ("u2u2i", world.u2u2i(6, neighbours=8)),
        ("popularity", world.popularity()),
    ):
        mine = frame[frame["channel"] == channel]
        wanted = scores[world.items.ids.find(mine["item_id"].to_numpy())]
        np.testing.assert_allclose(mine["score"], wanted, rtol=1e-5)
        assert (np.diff(mine["score"]) <= 0).all()


@pytest.mark.parametrize("block", [candidate_sources.LARGEST_BLOCK, 2])
def test_newcomers_are_described_by_their_features(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(candidate_sources, "LARGEST_BLOCK", block)
    world = World.random()
    columns = {
        "user_id": [7, FIRST + 3, 8, 9, None, 10],
        "history": [["item 3", "item 8"], ["item 1"], [], None, ["item 2"], ["item 5"]],
        "age": [None, 44.0, 50.0, None, None, 1e39],
    }
    frame, rejected = candidates(world, pa.table(columns), **only("u2i", 5))
    assert frame["user_id"].unique().tolist() == [7, FIRST + 3, 8]
    vector = world.items.vectors[[3, 8]].sum(axis=0)
    vector[0] = 1
    assert (
        rows(world, frame, 7)
        == best(world.items.vectors @ vector, without=[3, 8], depth=5)[0].tolist()
    )
    aged = np.array([1, 0.5, 0, 0, 0, 0, 0], dtype=np.float32)
    assert (
        rows(world, frame, 8) == best(world.items.vectors @ aged, without=[], depth=5)[0].tolist()
    )
    out = np.append(world.has(3), 1)
    assert rows(world, frame, FIRST + 3) == best(world.u2i(3), without=out, depth=5)[0].tolist()
    assert rejected == [
        {"row": 3, "id": "9", "reason": "unknown, and no features given"},
        {"row": 4, "id": None, "reason": "no id"},
        {"row": 5, "id": "10", "reason": "a feature that cannot be read"},
    ]


def test_features_come_first_where_they_are_preferred() -> None:
    world = World.random()
    table = pa.table({"user_id": [FIRST + 3, FIRST + 4], "age": [50.0, None]})
    frame, _ = candidates(world, table, prefer_features=True, **only("u2i", 5))
    aged = np.array([1, 0.5, 0, 0, 0, 0, 0], dtype=np.float32)
    by_age = best(world.items.vectors @ aged, without=world.has(3), depth=5)[0]
    assert rows(world, frame, FIRST + 3) == by_age.tolist()
    stored = best(world.u2i(4), without=world.has(4), depth=5)[0]
    assert rows(world, frame, FIRST + 4) == stored.tolist()


def test_ids_keep_their_type() -> None:
    world = World.random()
    frame, _ = candidates(world, world.users_table([0]))
    assert frame["user_id"].tolist() == [FIRST] * len(frame)
    small = pa.table({"user_id": pa.array([5], pa.int32()), "age": [1.0]})
    assert candidates(world, small)[0]["user_id"].dtype == np.int64
    large = pa.table({"user_id": pa.array([FIRST], pa.uint64())})
    assert candidates(world, large)[0]["user_id"].unique().tolist() == [FIRST]


def test_audiences_are_users_by_the_match_score() -> None:
    world: Any = World.random()
    items = pa.table({"item_id": pa.array(["item 30", "no item", "item 4"], pa.large_string())})
    answer = AudienceTable(
        world, load_settings(None, changes={"audience_k": 7}), schema=items.schema
    )
    answered = answer(items)
    frame = answered.table.to_pandas()
    assert answered.rejected["row"].to_pylist() == [1]
    for row in (30, 4):
        scores = world.users.vectors @ world.items.vectors[row]
        wanted, values = best(scores, without=world.seen.of("item", row), depth=7)
        mine = frame[frame["item_id"] == f"item {row}"]
        assert (mine["user_id"] - FIRST).tolist() == wanted.tolist()
        np.testing.assert_allclose(mine["score"], values, rtol=1e-5, atol=1e-6)
        assert mine["rank"].tolist() == list(range(1, 8))


def test_a_blocked_item_has_no_audience() -> None:
    world: Any = World.random()
    world.catalogue("item").remove(["item 4"])
    items = pa.table({"item_id": ["item 4"]})
    answered = AudienceTable(world, load_settings(None, changes={}), schema=items.schema)(items)
    assert answered.table.num_rows == 0
    assert answered.rejected["reason"].to_pylist() == ["blocked"]


def test_users_may_have_text_ids_and_items_integers() -> None:
    world = World.random()
    users = pd.DataFrame({"uid": np.array([f"ü{row}" for row in range(30)], dtype=object)})
    items = pd.DataFrame({"sku": np.arange(50) - 2**62})
    other: Any = dataclasses.replace(
        world,
        users=Embeddings.from_pandas(users, world.users.vectors),
        items=Embeddings.from_pandas(items, world.items.vectors),
    )
    table = pa.table({"uid": pa.array(["ü4", "", "ü9"]).dictionary_encode()})
    frame, rejected = candidates(other, table, **only("u2i", 5))
    assert frame["user_id"].tolist() == ["ü4"] * 5 + ["ü9"] * 5
    assert frame["item_id"].dtype == np.int64
    wanted = best(world.u2i(9), without=world.has(9), depth=5)[0]
    assert (frame["item_id"][5:] + 2**62).tolist() == wanted.tolist()
    assert rejected == [{"row": 1, "id": None, "reason": "no id"}]
