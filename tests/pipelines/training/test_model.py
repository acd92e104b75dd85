from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.schema import Features
from towers.start import spectral_vectors
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

DIM = 8


def build(tiny: Tiny, dataset: Dataset, **model: Any) -> TwoTower:
    config = tiny.config(model={"embedding_dim": DIM, "init_norm": 0.5} | model)
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    return build_model(config, batches)


def test_items_of_histories_start_where_the_interactions_place_them(
    tiny: Tiny, dataset: Dataset
) -> None:
    spectral = build(tiny, dataset).features.v.numpy()
    rows = dataset.history_rows[dataset.history_rows >= 0]
    seed = tiny.config().seed
    expected = spectral_vectors(
        lambda: [every_positive(dataset.interactions)],
        DIM,
        user_counts=dataset.interactions.user_counts,
        item_counts=dataset.interactions.item_counts,
        seed=seed,
    )[dataset.history_rows >= 0]
    np.testing.assert_allclose(spectral[rows], expected * 0.5 / math.sqrt(DIM), rtol=1e-6)
    lengths = np.linalg.norm(spectral[rows], axis=1)
    assert np.sqrt(np.mean(np.square(lengths))) == pytest.approx(0.5, rel=0.05)


def test_all_else_starts_at_random_but_unknown_tokens_at_zero(tiny: Tiny, dataset: Dataset) -> None:
    spectral, normal = (
        build(tiny, dataset, init=init).features.v.numpy() for init in ("spectral", "normal")
    )
    is_item = np.isin(np.arange(len(normal)), dataset.history_rows)
    assert not np.any(np.all(spectral[is_item] == normal[is_item], axis=1))
    np.testing.assert_array_equal(spectral[~is_item], normal[~is_item])
    oov_rows = dataset.vocabulary.oov_rows
    np.testing.assert_array_equal(normal[oov_rows], 0.0)
    drawn = np.delete(normal, oov_rows, axis=0)
    assert np.std(drawn) == pytest.approx(0.5 / math.sqrt(DIM), rel=0.2)


def test_without_histories_every_vector_starts_at_random(tiny: Tiny, dataset: Dataset) -> None:
    static = tuple(found for found in dataset.schema.user.features if found.kind != "history")
    schema = dataclasses.replace(dataset.schema, user=Features(features=static))
    dataset = dataclasses.replace(dataset, schema=schema)
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
