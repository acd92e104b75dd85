from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from towers.layers import FeatureTable
from towers.negatives import Source
from towers.optimizer import LazyAdam
from towers.two_tower import BATCH_SPEC, TwoTower

Arrays = dict[str, NDArray[Any]]

N_ROWS, DIM = 12, 3
N_QUERIES, N_ITEMS, N_SHARED = 4, 7, 5
DENSE = {"user": 3, "item": 2}
"""How many numbers of vectors a user has, and an item; they are on the first rows of a batch."""


def make_model(
    *, hardest: int = 3, margin: float = 1.0, l2: float = 0.0, explicit_share: float = 0.0
) -> TwoTower:
    features = FeatureTable(N_ROWS, embedding_dim=DIM, init_scale=0.7, seed=3)
    features.w.assign(np.linspace(-1.0, 1.0, N_ROWS))
    return TwoTower(features, margin=margin, hardest=hardest, l2=l2, explicit_share=explicit_share)


def entries(rng: np.random.Generator, n: int, n_rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random bags, their entries in no order and on none of the first rows."""
    chosen = rng.random((n, n_rows)) < 0.5
    chosen[:, : DENSE["user"]] = False
    where = np.argwhere(chosen)
    rng.shuffle(where)
    return where.astype(np.int64), rng.normal(size=len(where)).astype(np.float32)


def make_batch(seed: int) -> Arrays:
    """A batch with real-valued bags; the last query has no positive, and mined negatives lack."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(N_ROWS)[:9].astype(np.int64)
    user_indices, user_values = entries(rng, N_QUERIES, len(rows))
    item_indices, item_values = entries(rng, N_ITEMS, len(rows))
    return {
        "rows": rows,
        "user_indices": user_indices,
        "user_values": user_values,
        "n_queries": np.array(N_QUERIES, dtype=np.int64),
        "item_indices": item_indices,
        "item_values": item_values,
        "item_popularity": rng.integers(1, 9, N_ITEMS).astype(np.float32),
        "user_dense": rng.normal(size=(N_QUERIES, DENSE["user"])).astype(np.float32),
        "item_dense": rng.normal(size=(N_ITEMS, DENSE["item"])).astype(np.float32),
        "positive_query": np.array([0, 0, 1, 2, 2], dtype=np.int32),
        "positive_item": rng.integers(0, N_ITEMS, 5).astype(np.int32),
        "positive_weight": rng.uniform(0.5, 2.0, 5).astype(np.float32),
        "shared_source": np.array([0, 1, 0, 0, 1], dtype=np.int8),
        "mined_item": rng.integers(-1, N_ITEMS, (N_QUERIES, 2)).astype(np.int32),
        "explicit_item": np.array([[1, -1, 3], [-1, -1, -1], [5, 5, -1], [0, 2, 4]])[:N_QUERIES],
        "explicit_weight": rng.uniform(0.5, 2.0, (N_QUERIES, 3)).astype(np.float32),
        "known": np.array([[0, 1], [0, 4], [2, 0], [2, 2], [2, 3]], dtype=np.int32),
    }


def tensors(batch: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value, BATCH_SPEC[name].dtype) for name, value in batch.items()}


def dense(batch: Arrays, side: str, n: int) -> NDArray[Any]:
    """Bags as a matrix over the rows of the whole table."""
    x = np.zeros((n, N_ROWS))
    for (at, code), value in zip(batch[f"{side}_indices"], batch[f"{side}_values"], strict=True):
        x[at, batch["rows"][code]] += value
    x[:, batch["rows"][DENSE["user"] - DENSE[side] : DENSE["user"]]] += batch[f"{side}_dense"]
    return x


def naive_loss(batch: Arrays, w: Any, v: Any, *, model: dict[str, Any]) -> Any:
    """The loss by its definition, in float64 and loops; w and v are float64 tensors."""
    users = tf.constant(dense(batch, "user", N_QUERIES)) @ v
    x = tf.constant(dense(batch, "item", N_ITEMS))
    pool = x @ v
    products = v @ tf.transpose(v)
    pairs = [tf.reduce_sum(np.tril(np.outer(row, row), -1) * products) for row in x.numpy()]
    quality = tf.linalg.matvec(x, w) + tf.stack(pairs)

    def score(query: int, item: int) -> Any:
        return quality[item] + tf.reduce_sum(users[query] * pool[item])

    known = {tuple(pair) for pair in batch["known"].tolist()}
    total = tf.constant(0.0, tf.float64)
    for query, positive, weight in zip(
        batch["positive_query"], batch["positive_item"], batch["positive_weight"], strict=True
    ):
        shared = range(len(batch["shared_source"]))
        negatives = [item for item in shared if (query, item) not in known]
        negatives += [item for item in batch["mined_item"][query] if item >= 0]
        scores = sorted((score(query, item) for item in negatives), key=float, reverse=True)
        scores = scores[: model["hardest"]]
        hinges = [tf.nn.relu(model["margin"] - score(query, positive) + s) for s in scores]
        hinge = tf.add_n(hinges) / len(hinges) if hinges else tf.constant(0.0, tf.float64)
        given = zip(batch["explicit_item"][query], batch["explicit_weight"][query], strict=True)
        turned_down = [(item, float(x)) for item, x in given if item >= 0]
        share = model.get("explicit_share", 0.0)
        if turned_down and share:
            gaps = [
                x * tf.nn.relu(model["margin"] - score(query, positive) + score(query, item))
                for item, x in turned_down
            ]
            mean = tf.add_n(gaps) / sum(x for _, x in turned_down)
            hinge = (1.0 - share) * hinge + share * mean
        total += float(weight) * hinge
    total /= batch["positive_weight"].sum(dtype=np.float64)
    norms = tf.reduce_mean(tf.reduce_sum(users**2, axis=1))
    norms += tf.reduce_mean(quality**2 + tf.reduce_sum(pool**2, axis=1))
    return total + model["l2"] * norms


def densify(gradient: tf.IndexedSlices) -> NDArray[Any]:
    whole = np.zeros(gradient.dense_shape.numpy(), np.float32)
    np.add.at(whole, gradient.indices.numpy(), gradient.values.numpy())
    return whole


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "setting",
    [
        {"hardest": 1, "margin": 1.0, "l2": 0.0},
        {"hardest": 3, "margin": 0.5, "l2": 0.1},
        {"hardest": 99, "margin": 2.0, "l2": 0.0},
        {"hardest": 3, "margin": 1.0, "l2": 0.0, "explicit_share": 0.3},
    ],
)
def test_the_loss_and_its_gradients_are_those_of_the_definition(
    seed: int, setting: dict[str, Any]
) -> None:
    batch, model = make_batch(seed), make_model(**setting)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(tensors(batch), training=True)
    gradients = tape.gradient(loss, [model.features.w, model.features.v])
    w, v = (tf.Variable(tf.cast(x, tf.float64)) for x in (model.features.w, model.features.v))
    with tf.GradientTape() as tape:
        expected = naive_loss(batch, w, v, model=setting)
    np.testing.assert_allclose(loss.numpy(), expected.numpy(), rtol=1e-5)
    for ours, theirs in zip(gradients, tape.gradient(expected, [w, v]), strict=True):
        assert isinstance(ours, tf.IndexedSlices)
        np.testing.assert_allclose(
            densify(ours), tf.convert_to_tensor(theirs).numpy(), rtol=1e-4, atol=1e-5
        )


def test_the_compiled_loss_is_the_eager_one() -> None:
    batch, model = tensors(make_batch(1)), make_model(l2=0.1)
    compiled = tf.function(model.compute_loss, autograph=False)
    np.testing.assert_allclose(compiled(batch), model.compute_loss(batch), rtol=1e-6)


def test_known_positives_and_padding_are_no_negatives() -> None:
    """Their scores may be anything: the loss is that of the other negatives."""
    model, batch = make_model(hardest=2), make_batch(0)
    batch["known"] = np.array([(q, at) for q in range(N_QUERIES) for at in range(N_SHARED)])
    batch["mined_item"] = np.full((N_QUERIES, 1), -1)
    assert model.compute_loss(tensors(batch)).numpy() == 0.0
    batch["known"] = batch["known"][1:]  # of the first query, the first shared item counts again
    batch["positive_item"][:] = 0  # which violates by the margin exactly
    weights = batch["positive_weight"]
    expected = weights[:2].sum() / weights.sum()
    np.testing.assert_allclose(model.compute_loss(tensors(batch)).numpy(), expected, rtol=1e-5)


def test_a_batch_without_positives_has_no_hinge() -> None:
    model, batch = make_model(), make_batch(0)
    for name in ("positive_query", "positive_item", "positive_weight"):
        batch[name] = batch[name][:0]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(tensors(batch))
    assert loss.numpy() == 0.0
    for gradient in tape.gradient(loss, [model.features.w, model.features.v]):
        assert not np.any(densify(gradient))


def scored_batch() -> tuple[TwoTower, Arrays]:
    """Queries with empty bags, so that an item's score is its own first-order weight.

    Items and their scores: b 3, c 2, d 1, a 0, e 5, f 3.5. Shared negatives: b and d (uniform), c
    (popularity). The first query likes a, and c is known; e was mined for it. The second likes d
    and f; nothing was mined.
    """
    model = make_model(hardest=2)
    model.features.w.assign([3.0, 2.0, 1.0, 0.0, 5.0, 3.5] + [0.0] * 6)
    _, c, d, a, e, f = range(6)
    batch = {
        "rows": np.arange(6),
        "user_indices": np.empty((0, 2)),
        "user_values": np.empty(0),
        "n_queries": np.array(2),
        "item_indices": np.stack([np.arange(6), np.arange(6)], axis=1),
        "item_values": np.ones(6),
        "item_popularity": np.array([20.0, 30.0, 40.0, 10.0, 50.0, 60.0]),
        "user_dense": np.empty((2, 0)),
        "item_dense": np.empty((6, 0)),
        "positive_query": np.array([0, 1, 1]),
        "positive_item": np.array([a, d, f]),
        "positive_weight": np.array([1.0, 2.0, 1.0]),
        "shared_source": np.array([Source.UNIFORM, Source.POPULARITY, Source.UNIFORM]),
        "mined_item": np.array([[e, -1], [-1, -1]]),
        "explicit_item": np.array([[a], [f]]),  # without a share
        "explicit_weight": np.ones((2, 1)),
        "known": np.array([[0, c], [1, d]]),
    }
    return model, batch


def test_the_metrics_tell_what_was_sampled_and_what_the_loss_saw() -> None:
    model, batch = scored_batch()
    loss = model.compute_loss(tensors(batch))
    # hardest: e (5) and b (3) for the first query, b (3) and c (2) for the second
    hinges = [(1 - 0 + 5 + 1 - 0 + 3) / 2, (1 - 1 + 3 + 1 - 1 + 2) / 2, (1 - 3.5 + 3 + 0) / 2]
    assert loss.numpy() == pytest.approx((hinges[0] + 2 * hinges[1] + hinges[2]) / 4)
    figures = {metric.name: float(metric.result()) for metric in model.metrics}
    assert figures == pytest.approx(
        {
            "mean_loss": (hinges[0] + 2 * hinges[1] + hinges[2]) / 4,
            "violators": (1 + 1 + 0.5) / 3,
            "left_out": 2 / 6,
            "popularity_of_positives": (10 + 40 + 60) / 3,
            "popularity_of_sampled": (2 * (20 + 30 + 40) + 50) / 7,
            "popularity_of_hardest": (50 + 20 + 20 + 30) / 4,
            "sampled_uniform": 4 / 7,
            "sampled_popularity": 2 / 7,
            "sampled_mined": 1 / 7,
            "hardest_uniform": 2 / 4,
            "hardest_popularity": 1 / 4,
            "hardest_mined": 1 / 4,
        }
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_shares_by_source_sum_to_one(seed: int) -> None:
    model = make_model()
    for batch in (make_batch(seed), make_batch(seed + 10)):
        model.compute_loss(tensors(batch))
    figures = {metric.name: float(metric.result()) for metric in model.metrics}
    for kind in ("sampled", "hardest"):
        shares = [figures[f"{kind}_{source.name.lower()}"] for source in Source]
        assert sum(shares) == pytest.approx(1.0)
        assert all(0.0 <= share <= 1.0 for share in shares)


def test_training_moves_the_rows_of_the_batch_through_sparse_gradients() -> None:
    class Recorder(LazyAdam):
        """Keeps the types of the gradients that reach it."""

        def update_step(self, gradient: Any, variable: tf.Variable) -> None:
            kinds.append(type(gradient))
            super().update_step(gradient, variable)

    kinds: list[type] = []
    model, batch = make_model(), make_batch(1)
    model.compile(optimizer=Recorder(0.05))
    before = [variable.numpy() for variable in model.trainable_variables]
    batches = [make_batch(1) for _ in range(20)]

    def generate() -> Iterator[Arrays]:
        yield from batches

    data = tf.data.Dataset.from_generator(generate, output_signature=BATCH_SPEC)
    start = float(model.compute_loss(tensors(batch)))
    logs = model.fit(data, epochs=1, verbose=0).history
    assert set(kinds) == {tf.IndexedSlices}
    assert float(model.compute_loss(tensors(batch))) < 0.5 * start
    assert logs["hardest_uniform"][0] > 0.0
    untouched = np.setdiff1d(np.arange(N_ROWS), batch["rows"])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy()[untouched], old[untouched])
        assert np.any(variable.numpy() != old)


def test_without_its_optimizer_a_model_keeps_its_parameters_and_frees_the_rest() -> None:
    model = make_model()
    model.compile(optimizer=LazyAdam(0.1))
    model.optimizer.build(model.trainable_variables)
    kept = weakref.ref(model.optimizer)
    features = model.features
    model = model.without_optimizer()
    gc.collect()
    assert kept() is None
    assert model.features is features
