"""Rankers: scores are the sum over all pairs of fields, and what explains them is their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from towers.ranking.bags import Entries, FieldBags, HeldBags
from towers.ranking.interactions import INTERACTIONS, pairs_of
from towers.ranking.pairs import Batch, Fields, PairCross, pool
from towers.ranking.ranker import Pooled, Ranker
from towers.ranking.settings import Kind, RankerSettings

N_ROWS, N_FIELDS, DIM = 12, 4, 3

KINDS = list(INTERACTIONS)


def _ranker(kind: Kind, *, n_fields: int = N_FIELDS, dropout: float = 0.0) -> Ranker:
    chosen = RankerSettings(
        kind=kind, embedding_dim=DIM, init_scale=1.0, dropout=dropout, hidden=(8,)
    )
    return Ranker(N_ROWS, n_fields, chosen, seed=1)


def _entries(draw: np.random.Generator, *, n: int, n_fields: int = N_FIELDS) -> Entries:
    m = 5 * n
    return Entries(
        tf.constant(np.sort(draw.integers(n, size=m))),
        tf.constant(draw.integers(n_fields, size=m)),
        tf.constant(draw.integers(N_ROWS - 3, size=m)),
        tf.constant(draw.normal(size=m).astype(np.float32)),
    )


def _naive_pools(ranker: Ranker, entries: Entries, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    w, v = (part.numpy().astype(np.float64) for part in (ranker.features.w, ranker.features.v))
    first, vectors = np.zeros((n, N_FIELDS)), np.zeros((n, N_FIELDS, v.shape[1]))
    for owner, field, row, x in zip(*(part.numpy() for part in entries), strict=True):
        first[owner, field] += w[row] * x
        vectors[owner, field] += v[row] * float(x)
    return first, vectors


def _naive_pair(ranker: Ranker, vectors: NDArray[Any], pair: tuple[int, int]) -> float:
    f, g = pair
    if ranker.settings.kind == "ffm":
        towards = vectors.reshape(N_FIELDS, N_FIELDS, DIM)
        return float(towards[f, g] @ towards[g, f])
    product = float(vectors[f] @ vectors[g])
    if ranker.settings.kind == "fwfm":
        number = list(zip(*pairs_of(N_FIELDS), strict=True)).index(pair)
        return float(ranker.interaction.weights_of_pairs.numpy()[number]) * product
    return product


@pytest.mark.parametrize("kind", ["fm", "fwfm", "ffm"])
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_score_is_the_sum_over_fields_and_pairs_of_fields(kind: Kind, seed: int) -> None:
    draw, n = np.random.default_rng(seed), 3
    ranker, entries = _ranker(kind), _entries(draw, n=3)
    ranker.features.w.assign(draw.normal(size=N_ROWS))
    if kind == "fwfm":
        ranker.interaction.weights_of_pairs.assign(draw.normal(size=6))
    found = ranker(ranker.pool(entries, n=n, n_fields=N_FIELDS))
    first, vectors = _naive_pools(ranker, entries, n)
    pairs = list(zip(*pairs_of(N_FIELDS), strict=True))
    expected = [[_naive_pair(ranker, one, (int(f), int(g))) for f, g in pairs] for one in vectors]
    np.testing.assert_allclose(found.first, first, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.parts.pairs, expected, rtol=1e-3, atol=1e-3)
    total = ranker.bias.numpy()[0] + first.sum(axis=1) + np.sum(expected, axis=1)
    np.testing.assert_allclose(found.logits, total, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_sum_to_the_score(kind: Kind) -> None:
    ranker, entries = _ranker(kind), _entries(np.random.default_rng(2), n=5)
    found = ranker(ranker.pool(entries, n=5, n_fields=N_FIELDS))
    parts = found.parts
    total = found.bias + tf.reduce_sum(found.first, 1) + tf.reduce_sum(parts.pairs, 1) + parts.deep
    np.testing.assert_allclose(found.logits, total, rtol=1e-5)
    if kind == "afm":
        np.testing.assert_allclose(tf.reduce_sum(parts.attention, 1), np.ones(5), rtol=1e-5)
        assert np.ptp(parts.attention.numpy()[0]) > 0.0
    assert bool(np.any(parts.deep.numpy() != 0.0)) == (kind == "deepfm")


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_changes_scores_in_training_alone(kind: Kind) -> None:
    ranker, entries = _ranker(kind, dropout=0.5), _entries(np.random.default_rng(2), n=8)
    pooled = ranker.pool(entries, n=8, n_fields=N_FIELDS)
    calm = ranker(pooled).logits.numpy()
    assert (calm == ranker(pooled).logits.numpy()).all()
    assert (calm != ranker(pooled, training=True).logits.numpy()).any()


def test_the_gradient_of_shared_queries_is_that_of_repeated_ones() -> None:
    ranker, entries = _ranker("fm"), _entries(np.random.default_rng(3), n=2)
    places = tf.constant([0, 1, 1, 0, 1], tf.int64)
    labels, weights = tf.constant([1.0, 0, 1, 0, 0]), tf.constant([1.0, 2, 1, 1, 3])

    def gradient(pick: Any) -> NDArray[Any]:
        with tf.GradientTape() as tape:
            pooled = ranker.pool(entries, n=2, n_fields=N_FIELDS)
            loss = ranker.loss_of(pick(pooled), labels, weights)
        found = tape.gradient(loss, ranker.features.v)
        return np.asarray(tf.convert_to_tensor(found))

    def stacked(pooled: Pooled) -> Pooled:
        return Pooled(*(tf.stack([part[int(at)] for at in places]) for part in pooled))

    np.testing.assert_allclose(
        gradient(lambda pooled: pooled.take(places)), gradient(stacked), rtol=1e-4, atol=1e-6
    )


def test_pairs_have_crosses_and_the_score_of_recall() -> None:
    cross = PairCross(name="a x c", query_field=0, item_field=0, first_row=9, buckets=2)
    fields = Fields(
        query=("a",), item=("c",), crosses=(cross,), recall_row=11, recall_mean=1.0, recall_std=2.0
    )
    one, zeros = tf.ones([2], tf.float32), tf.zeros([2], tf.int64)
    ids = tf.constant([0, 1], tf.int64)
    batch = Batch(
        queries=Entries(ids, zeros, tf.constant([0, 1], tf.int64), one),
        n_queries=tf.constant(2, tf.int64),
        items=Entries(zeros, zeros, tf.constant([5, 6], tf.int64), one),
        n_items=tf.constant(1, tf.int64),
        query_of=tf.constant([0, 1, 1], tf.int64),
        item_of=tf.constant([0, 0, 0], tf.int64),
        recall=tf.constant([5.0, np.nan, -1.0]),
    )
    ranker = Ranker(N_ROWS, len(fields.names), RankerSettings(kind="fm", embedding_dim=DIM))
    ranker.features.w.assign([0.0] * 9 + [1.0, 1.0, 1.0])
    first = pool(ranker, batch, fields).first.numpy()
    assert fields.names == ("a", "c", "a x c", "recall")
    np.testing.assert_allclose(first[:, 3], [2.0, 0.0, -1.0])
    np.testing.assert_allclose(first[:, 2], [np.sqrt(2.0)] * 3, rtol=1e-5)


def test_names_that_both_sides_have_are_told_apart() -> None:
    assert Fields(query=("id", "age"), item=("id",)).names == ("user.id", "age", "item.id")


def test_held_bags_give_back_what_they_hold() -> None:
    entries = _entries(np.random.default_rng(4), n=6)
    bags = FieldBags.of(entries, n=6, n_fields=N_FIELDS)
    joined = FieldBags.joined([bags, bags])
    taken = HeldBags(joined).take(tf.constant([7, 1], tf.int64))
    owners = taken.owners.numpy()
    for column in ("fields", "rows", "x"):
        whole = getattr(entries, column).numpy()[entries.owners.numpy() == 1]
        for owner in (0, 1):
            np.testing.assert_array_equal(getattr(taken, column).numpy()[owners == owner], whole)
