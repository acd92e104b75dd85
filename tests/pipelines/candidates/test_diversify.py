from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.candidates.answer import CandidateTable
from pipelines.candidates.channels import Channels, Users
from pipelines.candidates.diversify import merge_diverse
from pipelines.candidates.merge import Merged, depth_of, merge
from pipelines.candidates.settings import CandidateSettings, Channel
from serving.retrieval.diversity import Diversity
from serving.version.embeddings import Embeddings
from tests.examples import examples
from tests.pipelines.candidates.candidates_support import World
from towers.errors import QueryError

N = 40
PLAN = (
    Channel(name="u2i", quota=4),
    Channel(name="recent", quota=2),
    Channel(name="popularity", quota=2),
)
CHANNELS: dict[str, int] = {channel.name: place for place, channel in enumerate(PLAN)}


def world_of(seed: int, n_brands: int) -> World:
    world = World.random(n_users=6, n_items=N, seed=seed)
    rng = np.random.default_rng(seed)
    table = world.items.table.to_pandas().assign(brand=rng.integers(0, n_brands, N))
    items = Embeddings.from_pandas(table, world.items.vectors)
    return World(world.users, items, world.seen, world.recent)


def users_of(world: World) -> Users:
    rows = np.arange(6)
    seen = world.seen.pairs("user", rows)
    return Users(rows=rows, vectors=world.users.vectors, unwanted=seen, latest=seen)


def merged_by(world: World, users: Users, diversity: Diversity, *, k: int) -> Merged:
    chosen = CandidateSettings(k=k, channels=PLAN)
    items = world.catalogue("item")
    channels = Channels(world, chosen)  # type: ignore[arg-type]
    return merge_diverse(channels, users, items, settings=chosen, diversity=diversity)


def as_lists(merged: Merged) -> list[list[tuple[int, int]]]:
    """Each user's candidates in order, with their channels."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(6)]
    for place, row, rank, channel in zip(
        merged.places, merged.rows, merged.ranks, merged.channels, strict=True
    ):
        found[place].append((int(row), int(channel)))
        assert rank == len(found[place])
    return found


def brute_force(world: World, user: int, *, cap: int, k: int) -> list[tuple[int, int]]:
    """The channels in their order, each over all items, in plain Python."""
    brands = world.items.column("brand").to_pylist()
    scores = {
        "u2i": world.users.vectors[user] @ world.items.vectors.T,
        "recent": world.recent.counts,
        "popularity": world.popularity(),
    }
    order = {
        name: sorted(range(N), key=lambda row: (-values[row], row))
        for name, values in scores.items()
    }
    has, taken = set(world.has(user)), dict[int, int]()

    def take(name: str, count: int) -> None:
        for row in order[name]:
            used = sum(brands[other] == brands[row] for other in taken)
            if count > 0 and row not in has and row not in taken and used < cap:
                taken[row] = CHANNELS[name]
                count -= 1

    for channel in PLAN:
        take(channel.name, channel.quota)
    for name in ("u2i", "popularity"):
        take(name, k - len(taken))
    names = list(CHANNELS)
    return sorted(taken.items(), key=lambda one: (one[1], order[names[one[1]]].index(one[0])))


@settings(max_examples=examples(20))
@given(
    seed=st.integers(0, 999),
    n_brands=st.integers(1, 12),
    cap=st.integers(1, 4),
    k=st.integers(8, 14),
)
def test_caps_hold_for_all_that_a_user_gets_and_leave_nobody_short(
    seed: int, n_brands: int, cap: int, k: int
) -> None:
    world = world_of(seed, n_brands)
    found = as_lists(merged_by(world, users_of(world), Diversity(max_per={"brand": cap}), k=k))
    for user in range(6):
        assert found[user] == brute_force(world, user, cap=cap, k=k)


@settings(max_examples=examples(15))
@given(seed=st.integers(0, 99), weight=st.sampled_from([0.0, 0.5]), cap=st.integers(1, 2))
def test_what_a_user_gets_depends_on_nobody_else(seed: int, weight: float, cap: int) -> None:
    world = world_of(seed, 5)
    diversity = Diversity(max_per={"brand": cap}, weight=weight)
    users = users_of(world)
    together = as_lists(merged_by(world, users, diversity, k=10))
    for user in range(6):
        alone = merged_by(world, users.take(np.array([user])), diversity, k=10)
        assert as_lists(alone)[0] == together[user]


def test_without_caps_and_weight_it_is_the_plain_merge() -> None:
    world, chosen = world_of(3, 5), CandidateSettings(k=12, channels=PLAN)
    users, channels = users_of(world), Channels(world, chosen)  # type: ignore[arg-type]
    lists = [
        channels.list(one.name, users, depth_of(PLAN, place, k=12))
        for place, one in enumerate(PLAN)
    ]
    expected = as_lists(merge(PLAN, lists, k=12))
    assert as_lists(merged_by(world, users, Diversity(), k=12)) == expected


def test_candidates_are_less_alike_with_a_weight() -> None:
    world = world_of(1, 5)

    def likeness(weight: float) -> float:
        found = as_lists(merged_by(world, users_of(world), Diversity(weight=weight), k=8))
        pooled = world.items.vectors[:, 1:]
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        rows = [[row for row, _ in one] for one in found]
        return float(np.mean([(unit[one] @ unit[one].T).mean() for one in rows]))

    assert likeness(0.7) < likeness(0.3) < likeness(0.0)


def test_a_column_that_items_do_not_have_is_refused() -> None:
    lacking = CandidateSettings(max_per={"maker": 2})
    with pytest.raises(QueryError, match="'maker'"):
        CandidateTable(
            world_of(0, 2),  # type: ignore[arg-type]
            lacking,
            schema=pa.schema({"user_id": pa.int64()}),
        )
