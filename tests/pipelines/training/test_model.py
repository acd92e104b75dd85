from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.training.choose_start import with_histories
from pipelines.training.embed import embed
from pipelines.training.fit import as_tensors
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.features.kinds import Features
from towers.start import PENALTY, spectral_vectors
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

DIM = 8


def build(tiny: Tiny, dataset: Dataset, **model: Any) -> TwoTower:
    config = tiny.config(model={"embedding_dim": DIM, "init_norm": 0.5} | model)
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    return build_model(config, batches)


def expected_start(dataset: Dataset, *, seed: int, power: float = 0.2) -> NDArray[np.float32]:
    """The spectral vectors of all items, at the length that the model gives them."""
    counts = dataset.interactions.item_counts
    factors = np.maximum(counts, 1) ** power
    factors /= np.sqrt((counts * factors**2).sum() / counts.sum())
    vectors = spectral_vectors(
        lambda: [every_positive(dataset.interactions)],
        DIM,
        user_counts=dataset.interactions.user_counts,
        item_counts=dataset.interactions.item_counts,
        seed=seed,
    )
    vectors *= factors.astype(np.float32)[:, np.newaxis]
    return vectors * np.float32(0.5 / math.sqrt(DIM))


def test_items_start_where_the_interactions_place_them(tiny: Tiny, dataset: Dataset) -> None:
    """Their ids and their features together."""
    v = build(tiny, dataset).features.v.numpy()
    expected = expected_start(dataset, seed=tiny.config().seed)
    known = dataset.history_rows >= 0
    np.testing.assert_allclose((dataset.item_bags @ v)[known], expected[known], atol=1e-6)
    lengths = np.linalg.norm(expected[known], axis=1)
    assert np.sqrt(np.mean(np.square(lengths))) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("power", [0.0, 0.4])
def test_items_start_longer_by_a_power_of_their_count(
    tiny: Tiny, dataset: Dataset, power: float
) -> None:
    v = build(tiny, dataset, start_power=power).features.v.numpy()
    expected = expected_start(dataset, seed=tiny.config().seed, power=power)
    known = dataset.history_rows >= 0
    np.testing.assert_allclose((dataset.item_bags @ v)[known], expected[known], atol=1e-6)


def test_histories_of_a_larger_scale_leave_the_first_scores_as_they_are(
    tiny: Tiny, dataset: Dataset
) -> None:
    """What they are larger, vectors are shorter; pairs within an item alone count less."""
    history = dataset.schema.history
    assert history is not None
    config = tiny.config(model={"embedding_dim": DIM})
    scores = []
    for scale in (1.0, 4.0):
        scaled = with_histories(config, scale=scale)
        data = dataset.with_schema(scaled.schema)
        batches = FoldBatches.build(data, scaled.training, mined=None, seed=config.seed)
        vectors = embed(build_model(scaled, batches), data)
        scores.append(vectors["user"][:, 1:] @ vectors["item"][:, 1:].T)
    content, _ = dataset.content_bags("user")
    alone = np.diff(content.indptr) == 0  # whose vector is the history's alone
    np.testing.assert_allclose(scores[0][alone], scores[1][alone], rtol=1e-4, atol=1e-5)


def test_item_features_start_at_the_regression_of_the_items_on_them(
    tiny: Tiny, dataset: Dataset
) -> None:
    v = build(tiny, dataset).features.v.numpy()
    rows = dataset.vocabulary.tokens("item.tags").rows
    x = dataset.item_bags[:, rows].toarray()
    expected = expected_start(dataset, seed=tiny.config().seed)
    solved = np.linalg.solve(x.T @ x + PENALTY * np.eye(len(rows)), x.T @ expected)
    np.testing.assert_allclose(v[rows], solved, atol=1e-4)


def test_user_features_start_at_the_regression_of_the_histories_on_them(
    tiny: Tiny, dataset: Dataset
) -> None:
    v = build(tiny, dataset).features.v.numpy()
    content, rows = dataset.content_bags("user")
    histories = (dataset.query_bags(dataset.interactions.block(0)) - dataset.user_bags) @ v
    x = content.toarray()
    solved = np.linalg.solve(x.T @ x + PENALTY * np.eye(len(rows)), x.T @ histories)
    np.testing.assert_allclose(v[rows], solved, atol=1e-4)


def test_a_normal_start_is_at_random_but_for_unknown_tokens(tiny: Tiny, dataset: Dataset) -> None:
    normal = build(tiny, dataset, init="normal").features.v.numpy()
    oov_rows = dataset.vocabulary.oov_rows
    np.testing.assert_array_equal(normal[oov_rows], 0.0)
    drawn = np.delete(normal, oov_rows, axis=0)
    assert np.std(drawn) == pytest.approx(0.5 / math.sqrt(DIM), rel=0.2)


def test_without_histories_every_vector_starts_at_random(tiny: Tiny, dataset: Dataset) -> None:
    static = tuple(found for found in dataset.schema.user.features if found.kind != "history")
    schema = dataclasses.replace(dataset.schema, user=Features(features=static))
    dataset = dataclasses.replace(dataset, schema=schema, pasts={})
    spectral, normal = (
        build(tiny, dataset, init=init).features.v.numpy() for init in ("spectral", "normal")
    )
    np.testing.assert_array_equal(spectral, normal)


def test_more_dimensions_than_the_interactions_have_stay_at_random(
    tiny: Tiny, dataset: Dataset
) -> None:
    n_items = len(dataset.item_ids)
    v = build(tiny, dataset, embedding_dim=n_items + 5).features.v.numpy()
    assert np.all(np.std(v, axis=0) > 0.0)


@pytest.mark.parametrize("dim", [8, 32])
def test_the_rate_falls_with_the_root_of_the_dimensions(
    tiny: Tiny, dataset: Dataset, dim: int
) -> None:
    model = build(tiny, dataset, embedding_dim=dim)
    rate = tiny.config().training.learning_rate
    assert float(model.optimizer.learning_rate) == pytest.approx(rate * math.sqrt(128 / dim))


def test_no_row_is_moved_otherwise_where_keras_does_not_sum_repeated_ones(
    tiny: Tiny, dataset: Dataset
) -> None:
    """A batch names each row once, so that there is nothing to sum."""
    config = tiny.config(model={"embedding_dim": DIM})
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    models = [build_model(config, batches) for _ in range(2)]
    assert not models[0].optimizer.has_repeats
    models[1].optimizer.has_repeats = True
    for batch in as_tensors(batches, epoch=0).take(3):
        for model in models:
            model.train_step(batch)
    np.testing.assert_array_equal(*(model.features.v.numpy() for model in models))
