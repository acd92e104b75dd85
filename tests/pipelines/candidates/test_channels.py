from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.candidates import channels as candidate_channels
from pipelines.candidates.channels import Channels, Users, best_of, item_counts
from pipelines.candidates.settings import CandidateSettings
from serving.search.index import no_pairs
from serving.search.scann_index import ScannSettings
from tests.pipelines.candidates.candidates_support import World, best
from towers.errors import QueryError

NEIGHBOURS = 8
TREE = ScannSettings(num_leaves=30, leaves_to_search=20, reorder=200, recall_k=20)


def channels_of(world: Any, **settings: Any) -> Channels:
    return Channels(world, CandidateSettings(neighbours=NEIGHBOURS, **settings))


def users_of(world: World, rows: Any, *, latest: int = 3) -> Users:
    """Known users, what they have, and the first of that as the latest."""
    seen = world.seen.pairs("user", np.asarray(rows))
    first = np.concatenate(
        [np.flatnonzero(seen[0] == place)[:latest] for place in range(len(rows))]
    )
    return Users(
        rows=np.asarray(rows),
        vectors=world.users.vectors[rows],
        unwanted=seen,
        latest=(seen[0][first], seen[1][first]),
    )


def expected(world: World, channel: str, user: int, *, latest: int = 3) -> Any:
    if channel == "u2i":
        return world.u2i(user)
    if channel == "i2i":
        return world.i2i(world.has(user)[:latest])
    if channel == "u2u2i":
        return world.u2u2i(user, neighbours=NEIGHBOURS)
    if channel == "recent":
        return world.recent.counts.astype(np.float32)
    return world.popularity()


@pytest.mark.parametrize("channel", ["u2i", "i2i", "u2u2i", "popularity", "recent"])
@pytest.mark.parametrize("depth", [1, 12, 100])
@pytest.mark.parametrize("work", [candidate_channels.LARGEST_WORK, 100])
def test_a_channel_lists_what_brute_force_does(
    monkeypatch: pytest.MonkeyPatch, channel: Any, depth: int, work: int
) -> None:
    monkeypatch.setattr(candidate_channels, "LARGEST_WORK", work)
    world = World.random()
    rows = [4, 0, 29, 4]
    found, scores = channels_of(world).list(channel, users_of(world, rows), depth)
    assert found.shape == scores.shape == (4, depth)
    for place, user in enumerate(rows):
        wanted, values = best(expected(world, channel, user), without=world.has(user), depth=depth)
        assert found[place, : len(wanted)].tolist() == wanted.tolist()
        np.testing.assert_allclose(scores[place, : len(wanted)], values, rtol=1e-5, atol=1e-6)
        assert (found[place, len(wanted) :] == -1).all()
        assert np.isneginf(scores[place, len(wanted) :]).all()


@pytest.mark.parametrize("channel", ["u2i", "i2i", "u2u2i", "popularity"])
def test_a_channel_lists_what_the_filter_matches_and_is_not_blocked(channel: Any) -> None:
    world = World.random()
    blocked = world.catalogue("item").remove(["item 4", "item 20", "item 0"])
    for name in ("u2i", "i2i"):
        world.index(name).remove(blocked)
    year = world.items.table["year"].to_numpy()
    where = {"column": "year", "range": {"lt": 1997}}
    found, _ = channels_of(world, where=where).list(channel, users_of(world, [1, 2]), 60)
    for place, user in enumerate([1, 2]):
        out = np.concatenate([world.has(user), blocked, np.flatnonzero(year >= 1997)])
        wanted, _ = best(expected(world, channel, user), without=out, depth=60)
        assert found[place][found[place] >= 0].tolist() == wanted.tolist()
        assert len(wanted) > 3


@pytest.mark.parametrize("channel", ["u2i", "i2i", "u2u2i"])
def test_a_channel_finds_nearly_all_by_scann(channel: Any) -> None:
    exact, tree = (World.random(400, 1500, seed=1, tree=tree) for tree in (None, TREE))
    rows = np.arange(50)
    found, wanted = (
        channels_of(world).list(channel, users_of(world, rows), 20)[0] for world in (tree, exact)
    )
    hits = [len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)]
    assert np.mean(hits) / 20 > 0.9


@pytest.mark.parametrize("channel", ["u2i", "i2i", "u2u2i", "popularity"])
def test_a_channel_has_something_to_say_of_nobody_and_of_newcomers(channel: Any) -> None:
    world = World.random()
    empty = np.empty(0, dtype=np.int64)
    nobody = Users(empty, world.users.vectors[:0], no_pairs(), no_pairs())
    assert channels_of(world).list(channel, nobody, 5)[0].shape == (0, 5)
    newcomer = Users(np.array([-1]), world.users.vectors[:1], no_pairs(), no_pairs())
    found, _ = channels_of(world).list(channel, newcomer, 5)
    assert (found >= 0).sum() == (0 if channel == "i2i" else 5)


def test_a_filter_that_nothing_matches_is_refused() -> None:
    world: Any = World.random()
    with pytest.raises(QueryError, match="expected a filter that some item matches"):
        channels_of(world, where={"column": "year", "equals": 2050})
    with pytest.raises(QueryError, match="expected some of"):
        channels_of(world, where={"column": "title", "equals": "x"})


def test_items_are_counted_by_users() -> None:
    world: Any = World.random()
    assert item_counts(world).tolist() == world.popularity().tolist()


def test_best_of_repetitions_counts_and_ties_go_to_the_lower_row() -> None:
    rows, scores = best_of(
        np.array([2, 0, 0, 0, 2, 0]),
        np.array([9, 5, 3, 5, 1, 4]),
        np.array([1, 2, 7, 7, 3, 0], dtype=np.float32),
        size=3,
        depth=2,
    )
    assert rows.tolist() == [[3, 5], [-1, -1], [1, 9]]
    assert scores.tolist() == [[7, 7], [-np.inf, -np.inf], [3, 1]]
