"""What counts as a negative of a fold, and what does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from pipelines.behaviours import Behaviour
from pipelines.data.blocks import (
    HeldInteractions,
    every_positive,
)
from pipelines.data.events import Events
from tests.pipelines.training.folds_support import (
    DATASET,
    N_ITEMS,
    N_USERS,
    SIZES,
    decode,
    epoch,
    items_of,
    make_batches,
    make_mined,
)


def test_queries_draw_what_their_users_have_turned_down() -> None:
    positives = every_positive(DATASET.interactions)
    rng = np.random.default_rng(0)
    low = (rng.random(positives.shape) < 0.3) & (np.arange(N_USERS) % 3 > 0)[:, np.newaxis]
    weights = np.arange(1.0, low.size + 1).reshape(low.shape)
    bought, down = positives.tocoo(), np.nonzero(low)
    users = np.concatenate([bought.coords[0], down[0]]).astype(np.int64)
    order = np.argsort(users, kind="stable")
    is_positive = np.arange(len(users)) < bought.nnz
    events = Events(
        users=users[order],
        items=np.concatenate([bought.coords[1], down[1]]).astype(np.int64)[order],
        times=np.zeros(len(users)),
        weights=np.concatenate([bought.data, weights[low]]).astype(np.float32)[order],
        behaviours=(~is_positive).astype(np.int8)[order],
        positive=is_positive[order],
        moments=np.zeros(len(users), dtype=np.int32),
    )
    behaviours = {"buy": Behaviour(role="target"), "hide": Behaviour(role="negative")}
    held = HeldInteractions(positives, events=events, behaviours=behaviours)
    dataset = dataclasses.replace(DATASET, interactions=held)
    batches = make_batches(dataset=dataset, negatives={"explicit": 5})
    drawn: dict[int, set[int]] = {user: set() for user in range(N_USERS)}
    for number in range(6):
        for batch in epoch(batches, number):
            decoded = decode(batch)
            for user, codes, given in zip(
                decoded.users, batch["explicit_item"], batch["explicit_weight"], strict=True
            ):
                chosen = [decoded.items[code] if code >= 0 else -1 for code in codes]
                wanted = [weights[user, item] if item >= 0 else 0.0 for item in chosen]
                assert given.tolist() == wanted
                drawn[user] |= set(chosen)
    for user, found in drawn.items():
        expected = set(np.flatnonzero(low[user]).tolist()) - set(items_of(user))
        if not SIZES[user]:
            assert not found
        elif expected:
            assert found <= expected
            assert len(found) > 1 or len(expected) == 1
        else:
            assert found == {-1}


def test_a_user_s_own_items_never_count_as_negatives() -> None:
    for batch in map(decode, epoch(make_batches())):
        own = {
            (query, item)
            for query, user in enumerate(batch.users)
            for item in items_of(user)
            if item in batch.shared
        }
        assert batch.known == own
        for user, mined in zip(batch.users, batch.mined, strict=True):
            assert not set(mined) & set(items_of(user))


def test_items_that_came_later_are_no_negatives_where_histories_hold_only_the_past() -> None:
    matrix = every_positive(DATASET.interactions)
    first = np.arange(N_ITEMS, dtype=np.float64)[::-1]  # item 0 comes last
    times = first[matrix.indices] + np.random.default_rng(3).integers(0, N_ITEMS, matrix.nnz)
    found = np.full(N_ITEMS, np.inf)
    np.minimum.at(found, matrix.indices, times)
    timed = dataclasses.replace(
        DATASET, interactions=HeldInteractions(matrix, has_times=True, times=times)
    )
    time_of = {
        (user, int(item)): float(time)
        for user in range(N_USERS)
        for item, time in zip(
            items_of(user), times[slice(*matrix.indptr[user : user + 2])], strict=True
        )
    }
    later, mined = 0, 0
    for batch in map(decode, epoch(make_batches(dataset=timed))):
        for query, (user, mine) in enumerate(zip(batch.users, batch.positives, strict=True)):
            asked = max(time_of[user, item] for item, _ in mine)
            left_out = {item for at, item in batch.known if at == query}
            not_there = {item for item in batch.shared if found[item] > asked}
            assert left_out == not_there | (set(items_of(user)) & set(batch.shared))
            assert all(found[item] <= asked for item in batch.mined[query])
            later, mined = later + len(not_there), mined + len(batch.mined[query])
    assert later > 20
    assert mined > 20
    said = np.where(np.arange(N_ITEMS) % 2, -1.0, np.nan)  # every other item was there all along
    dated = dataclasses.replace(timed, available=said)
    for batch in map(decode, epoch(make_batches(dataset=dated, mined=False))):
        for query, (user, mine) in enumerate(zip(batch.users, batch.positives, strict=True)):
            asked = max(time_of[user, item] for item, _ in mine)
            left_out = {item for at, item in batch.known if at == query} - set(items_of(user))
            absent = {i for i in batch.shared if found[i] > asked and not i % 2}
            assert left_out == absent - set(items_of(user))
    for batch in map(decode, epoch(make_batches(dataset=timed, contexts="others"))):
        own = {(q, item) for q, user in enumerate(batch.users) for item in items_of(user)}
        assert batch.known <= own


def test_suppressed_positives_and_forgotten_histories_are_no_negatives_either() -> None:
    for batch in map(decode, epoch(make_batches(positive_suppression=1e-6, history_dropout=0.9))):
        for query, user in enumerate(batch.users):
            own = set(items_of(user)) & set(batch.shared)
            assert own == {item for at, item in batch.known if at == query}


def test_no_negative_counts_twice() -> None:
    drawn = 0
    for batch in map(decode, epoch(make_batches())):
        assert len(set(batch.items)) == len(batch.items)
        assert len(set(batch.shared)) == len(batch.shared)
        for mined in batch.mined:
            assert not set(mined) & set(batch.shared)
            assert len(set(mined)) == len(mined)
            drawn += len(mined)
    assert drawn > 0


def test_mined_negatives_are_those_of_the_query_s_user() -> None:
    mined = make_mined().items
    for batch in map(decode, epoch(make_batches())):
        for user, items in zip(batch.users, batch.mined, strict=True):
            assert set(items) <= set(mined[user].tolist())


@pytest.mark.parametrize("settings", [{"mined": False}, {"negatives": {"mined": 0}}])
def test_without_mined_negatives_there_is_one_empty_column(settings: dict[str, Any]) -> None:
    for batch in epoch(make_batches(**settings)):
        assert batch["mined_item"].shape == (int(batch["n_queries"]), 1)
        assert np.all(batch["mined_item"] == -1)
