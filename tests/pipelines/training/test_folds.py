from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from pipelines.data.blocks import (
    HeldInteractions,
    every_positive,
)
from tests.pipelines.training.folds_support import (
    DATASET,
    DATASET_ITEMS,
    FOLDS,
    N_ITEMS,
    N_USERS,
    SIZES,
    decode,
    dense,
    epoch,
    items_of,
    make_batches,
    make_dataset,
    same,
)
from towers.features.encoder import Encoder
from towers.features.packer import input_dtypes, pack
from towers.layers import FeatureTable
from towers.negatives import Source, keep_probability
from towers.optimizer import LazyAdam
from towers.two_tower import BATCH_SPEC, TwoTower


def test_items_can_be_told_apart_by_their_bags() -> None:
    assert len(DATASET_ITEMS) == N_ITEMS


@pytest.mark.parametrize("contexts", ["others", "past"])
@pytest.mark.parametrize("number", [0, 1])
def test_every_interaction_is_a_positive_exactly_once_an_epoch(number: int, contexts: str) -> None:
    found = [
        (user, item, weight)
        for batch in map(decode, epoch(make_batches(contexts=contexts), number))
        for user, positives in zip(batch.users, batch.positives, strict=True)
        for item, weight in positives
    ]
    coo = every_positive(DATASET.interactions).tocoo()
    weights = coo.data * np.diff(every_positive(DATASET.interactions).indptr)[coo.row] ** -0.5
    expected = sorted(zip(coo.row.tolist(), coo.col.tolist(), weights.tolist(), strict=True))
    assert [pair[:2] for pair in sorted(found)] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([w for *_, w in sorted(found)], [w for *_, w in expected], rtol=1e-6)


def test_a_user_has_as_many_queries_as_folds_with_items_and_these_are_even() -> None:
    queries: dict[int, list[int]] = {}
    for batch in map(decode, epoch(make_batches())):
        for user, positives in zip(batch.users, batch.positives, strict=True):
            queries.setdefault(user, []).append(len(positives))
    assert {user: len(sizes) for user, sizes in queries.items()} == {
        user: min(size, FOLDS) for user, size in enumerate(SIZES) if size
    }
    assert all(min(sizes) > 0 for sizes in queries.values())
    assert all(max(sizes) - min(sizes) <= 1 for sizes in queries.values())


def context(user: int, positives: list[tuple[int, float]], contexts: str) -> list[int]:
    """The items that a query's history is cut from."""
    items, mine = items_of(user), {item for item, _ in positives}
    if contexts == "others":
        return [item for item in items if item not in mine]
    return items[: min(items.index(item) for item in mine)]


def test_folds_of_past_contexts_are_stretches_of_time_that_leave_none_empty() -> None:
    queries: dict[int, list[list[int]]] = {}
    for batch in map(decode, epoch(make_batches(contexts="past"))):
        for user, positives in zip(batch.users, batch.positives, strict=True):
            places = [items_of(user).index(item) for item, _ in positives]
            queries.setdefault(user, []).append(sorted(places))
    for user, folds in queries.items():
        assert len(folds) == min(SIZES[user], FOLDS)
        assert [place for fold in sorted(folds) for place in fold] == list(range(SIZES[user]))


def test_histories_hold_only_the_past_where_there_are_times() -> None:
    held = HeldInteractions(every_positive(DATASET.interactions), has_times=True)
    timed = make_batches(dataset=dataclasses.replace(DATASET, interactions=held))
    assert same(epoch(timed), epoch(make_batches(contexts="past")))
    assert same(epoch(make_batches()), epoch(make_batches(contexts="others")))


@pytest.mark.parametrize("contexts", ["others", "past"])
def test_the_history_is_what_contexts_says_as_the_graph_encodes_it(contexts: str) -> None:
    """So a positive is never in its own history, and with `past` nothing after it is either."""
    inputs = input_dtypes(DATASET.schema, DATASET.vocabulary, side="user")
    encoder = Encoder(DATASET.schema, DATASET.vocabulary, side="user", pasts=DATASET.pasts)
    longest = 0
    for batch in map(decode, epoch(make_batches(contexts=contexts))):
        past = [
            [int(DATASET.item_ids[item]) for item in context(user, mine, contexts)]
            for user, mine in zip(batch.users, batch.positives, strict=True)
        ]
        longest = max(longest, *map(len, past))
        numbers = [user + 1.0 for user in batch.users]
        packed = pack({"history": past, "number": numbers}, inputs=inputs, size=len(past))
        x = encoder(packed)
        expected = np.zeros_like(batch.user_bags)
        expected[tuple(x.indices.numpy().T)] = x.values.numpy()
        expected[:, DATASET.vocabulary.newcomer_row] = 0.0  # who is placed after training
        # sums in another order; where terms cancel, float32 leaves some 1e-8 of them
        np.testing.assert_allclose(batch.user_bags, expected, rtol=1e-6, atol=1e-7)
    assert longest > 4  # so that some histories were cut to the latest
    assert np.any(DATASET.history_rows < 0)  # and some items in them bring their number alone


def test_batches_are_as_the_model_expects_them() -> None:
    batches = make_batches()
    for batch in epoch(batches):
        assert set(batch) == set(BATCH_SPEC)
        for name, spec in BATCH_SPEC.items():
            assert batch[name].dtype == spec.dtype.as_numpy_dtype, name
            assert spec.shape.is_compatible_with(batch[name].shape), name
        n_items = len(batch["item_popularity"])
        assert len(np.unique(batch["rows"])) == len(batch["rows"])
        for side, n in (("user", batch["n_queries"]), ("item", n_items)):
            indices: Any = batch[f"{side}_indices"]
            assert np.all((indices >= 0) & (indices < [n, len(batch["rows"])]))
        assert set(batch["shared_source"].tolist()) <= {Source.UNIFORM, Source.POPULARITY}
        popularity = DATASET.interactions.item_counts[decode(batch).items]
        np.testing.assert_array_equal(batch["item_popularity"], popularity)


def test_an_epoch_has_as_many_batches_as_announced() -> None:
    for batch_size in (1, 7, 10_000):
        batches = make_batches(batch_size=batch_size)
        sizes = [int(batch["n_queries"]) for batch in epoch(batches)]
        assert len(sizes) == batches.n_batches
        assert sum(sizes) == sum(min(size, FOLDS) for size in SIZES)
        assert set(sizes[:-1]) <= {batch_size}


def test_the_batch_size_is_as_configured_or_gives_an_epoch_steps_enough() -> None:
    assert make_batches(batch_size=3).batch_size == 3
    assert make_batches(batch_size=None).batch_size == 64  # a small table has fewer steps


def test_as_many_of_the_hardest_count_as_configured_or_as_the_density_allows() -> None:
    assert make_batches(negatives={"hardest": 3}).hardest == 3
    density = sum(SIZES) / (N_USERS * N_CHOSEN)
    drawn = {"uniform": 4, "popularity": 5}
    assert make_batches(negatives=drawn).hardest == round(15 * density * (4 + 5)) > 20
    assert make_batches(negatives={"uniform": 1, "popularity": 0}).hardest == 20


N_CHOSEN = int(np.count_nonzero(DATASET.interactions.item_counts))


@pytest.mark.parametrize(("uniform", "expected"), [(2048, N_CHOSEN // 4), (3, 3), (0, 0)])
def test_the_uniform_sample_is_at_most_a_quarter_of_the_chosen_items(
    uniform: int, expected: int
) -> None:
    for batch in epoch(make_batches(negatives={"uniform": uniform})):
        assert np.count_nonzero(batch["shared_source"] == Source.UNIFORM) == expected


def test_an_epoch_depends_on_its_number_and_the_seed_alone() -> None:
    batches = make_batches(history_dropout=0.5, positive_suppression=0.01)
    again = make_batches(history_dropout=0.5, positive_suppression=0.01)
    other = make_batches(history_dropout=0.5, positive_suppression=0.01, seed=6)
    first = epoch(batches, 3)
    assert same(first, epoch(batches, 3))
    assert same(first, epoch(again, 3))
    assert not same(first, epoch(batches, 4))
    assert not same(first, epoch(other, 3))


def test_folds_change_between_epochs() -> None:
    def folds(number: int) -> set[tuple[int, frozenset[int]]]:
        return {
            (user, frozenset(item for item, _ in positives))
            for batch in map(decode, epoch(make_batches(), number))
            for user, positives in zip(batch.users, batch.positives, strict=True)
        }

    assert folds(0) != folds(1)


def test_positives_are_suppressed_by_popularity() -> None:
    threshold, n = 0.01, 60
    batches = make_batches(positive_suppression=threshold, batch_size=1000)
    counts = np.zeros(N_ITEMS)
    for number in range(n):
        for batch in map(decode, epoch(batches, number)):
            for positives in batch.positives:
                np.add.at(counts, [item for item, _ in positives], 1)
    popularity = DATASET.interactions.item_counts
    keep = keep_probability(popularity, threshold=threshold)
    assert keep.min() < 0.5 < keep.max()
    trials = n * popularity
    within = 4 * np.sqrt(trials * keep * (1 - keep)) + 1e-9
    assert np.all(np.abs(counts - trials * keep) <= within)


def test_some_queries_are_trained_without_their_history() -> None:
    share = 0.25
    batches = make_batches(history_dropout=share, batch_size=1000)
    known = np.flatnonzero(DATASET.history_rows >= 0)
    is_forgotten = []
    for number in range(40):
        for batch in map(decode, epoch(batches, number)):
            has_past = np.count_nonzero(batch.user_bags[:, DATASET.history_rows[known]], axis=1)
            for query, user in enumerate(batch.users):
                positives = {item for item, _ in batch.positives[query]}
                if (set(items_of(user)) - positives) & set(known):
                    is_forgotten.append(not has_past[query])
    within = 4 * np.sqrt(share * (1 - share) / len(is_forgotten))
    assert abs(np.mean(is_forgotten) - share) <= within


def test_some_items_are_trained_as_if_nobody_had_seen_them() -> None:
    share, unknown = 0.25, DATASET.vocabulary.oov_rows
    batches = make_batches(id_dropout=share, batch_size=50)
    item_id = DATASET.vocabulary.tokens("item.item_id")
    known = DATASET.item_bags[:, item_id.rows].sum(axis=1) > 0
    expected = DATASET.item_bags.toarray()
    dropped = expected.copy()
    dropped[np.ix_(known, item_id.rows)] = 0
    dropped[known, item_id.oov_row] = 1
    assert item_id.oov_row in unknown
    is_new = []
    for number in range(40):
        for batch in epoch(batches, number):
            for bag in dense(batch, "item", len(batch["item_popularity"])):
                item = int(np.flatnonzero((expected == bag).all(1) | (dropped == bag).all(1))[0])
                if known[item]:
                    is_new.append((dropped[item] == bag).all())
    within = 4 * np.sqrt(share * (1 - share) / len(is_new))
    assert abs(np.mean(is_new) - share) <= within


def test_an_item_that_is_its_id_alone_keeps_it() -> None:
    only_ids = dataclasses.replace(
        DATASET,
        item_bags=sparse.csr_array(np.where(DATASET.item_bags.toarray() == 1, np.float32(1), 0)),
    )
    assert np.diff(only_ids.item_bags.indptr).max() == 1
    rows = only_ids.rows_without_ids("item")
    np.testing.assert_array_equal(rows, only_ids.item_bags.indices)
    assert make_batches(dataset=only_ids, id_dropout=0.9).without_ids == {}
    assert set(make_batches(id_dropout=0.9).without_ids) == {"item"}


def test_users_need_no_history_feature() -> None:
    plain = make_dataset(history=False)
    for batch in epoch(make_batches(dataset=plain)):
        assert len(batch["user_indices"]) == batch["n_queries"]


@pytest.mark.slow
def test_the_model_learns_from_the_batches() -> None:
    batches = make_batches()
    features = FeatureTable(DATASET.vocabulary.n_rows, embedding_dim=4, init_scale=0.1, seed=0)
    model = TwoTower(features, margin=0.5, hardest=5, l2=0.0)
    model.compile(optimizer=LazyAdam(0.05))
    data = tf.data.Dataset.from_generator(
        lambda: (batch for number in range(8) for batch in batches.epoch(number)),
        output_signature=BATCH_SPEC,
    )
    logs = model.fit(data, steps_per_epoch=batches.n_batches, epochs=8, verbose=0).history
    assert logs["mean_loss"][-1] < 0.85 * logs["mean_loss"][0]
    shares = [logs[f"sampled_{source.name.lower()}"] for source in Source]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1.0, rtol=1e-5)
    assert min(min(share) for share in shares) > 0.0
