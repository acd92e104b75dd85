"""Features are placed anew where cold items rank better by it, and known items stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.training.embed import embed, embed_without_ids
from pipelines.training.fit import Fit, Fitted
from pipelines.training.place_features import PENALTIES, measure_features, place_features
from pipelines.training.regress_features import regress_features
from tests.pipelines.training.starts import untrained

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

COLD = np.arange(12)

World = tuple[Fitted, Fit]


@pytest.fixture
def world(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> World:
    """The start, without the first items; each user wants the half of these that it says."""
    config = tiny.config()
    likes = every_positive(prepared.interactions("train")).tolil()
    likes[:, COLD] = 0.0
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(sparse.csr_array(likes)),
    )
    fitted = untrained(dataset, config, tmp_path)
    regress_features(fitted.model, dataset, penalty=1.0)
    vectors = embed(fitted.model, dataset)
    best = np.argsort(-(vectors["user"] @ vectors["item"][COLD].T), axis=1)[:, :3]
    users = np.repeat(np.arange(len(best)), best.shape[1])
    entries = np.ones(len(users), np.float32), (users, best.ravel())
    job = Fit(
        dataset=dataset,
        config=config,
        epochs=0,
        mined=None,
        validation=sparse.csr_array(entries, shape=likes.shape),
        directory=tmp_path,
        logs=tmp_path,
    )
    return fitted, job


def spoil(fitted: Fitted, job: Fit) -> None:
    """Move features at random, and ids so that known items stay, as training might."""
    dataset, table = job.dataset, fitted.model.features
    before = embed(fitted.model, dataset)["item"]
    _, columns = dataset.content_bags("item")
    known = np.flatnonzero(dataset.knows_item)
    noise = np.random.default_rng(3).standard_normal((len(columns), table.v.shape[1]))
    table.v.scatter_add(tf.IndexedSlices(noise.astype(np.float32), columns))
    ids = dataset.id_rows("item")[known]
    moved = (before - embed(fitted.model, dataset)["item"])[known]
    table.v.scatter_add(tf.IndexedSlices(moved[:, 1:], ids))
    moved = (before - embed(fitted.model, dataset)["item"])[known]
    table.w.scatter_add(tf.IndexedSlices(moved[:, 0], ids))


def test_known_items_and_users_stay_and_cold_items_move(world: World) -> None:
    fitted, job = world
    spoil(fitted, job)
    before, cold = (
        embed(fitted.model, job.dataset),
        embed_without_ids(fitted.model, job.dataset, COLD),
    )
    placed = place_features(fitted, job, Reporter(), penalty=10.0)
    after, known = embed(placed.model, job.dataset), job.dataset.knows_item
    np.testing.assert_allclose(after["item"][known], before["item"][known], atol=1e-4)
    np.testing.assert_allclose(after["user"], before["user"], atol=1e-3)
    moved = embed_without_ids(placed.model, job.dataset, COLD)
    assert np.linalg.norm(moved - cold) > 0.5 * np.linalg.norm(cold)
    assert placed.feature_penalty == 10.0


def test_a_penalty_is_chosen_where_features_mislead_and_none_where_they_do_not(
    world: World,
) -> None:
    fitted, job = world
    kept = fitted.model.features.v.numpy()
    assert measure_features(fitted, job, Reporter()) is None
    np.testing.assert_array_equal(fitted.model.features.v.numpy(), kept)
    spoil(fitted, job)
    assert measure_features(fitted, job, Reporter()) is not None


def test_without_cold_items_in_validation_those_left_out_choose(world: World) -> None:
    """Among items that nobody has chosen, the choice is better than what misleads."""
    fitted, job = world
    wanted = job.validation
    assert wanted is not None
    spoil(fitted, job)
    warm = dataclasses.replace(job, validation=every_positive(job.dataset.interactions))
    penalty = measure_features(fitted, warm, Reporter())
    assert penalty in PENALTIES
    before = recall_of_cold(fitted, job)
    assert recall_of_cold(place_features(fitted, warm, Reporter(), penalty=penalty), job) > before


def test_nothing_is_done_where_nothing_can_decide(world: World) -> None:
    fitted, job = world
    blind = dataclasses.replace(job, validation=None)
    assert measure_features(fitted, blind, Reporter()) is None
    assert place_features(fitted, blind, Reporter(), penalty=None) is fitted


def recall_of_cold(fitted: Fitted, job: Fit) -> float:
    """The share of what is wanted that is among the first three of the cold items."""
    assert job.validation is not None
    users, items = (
        embed(fitted.model, job.dataset)["user"],
        embed_without_ids(fitted.model, job.dataset, COLD),
    )
    best = np.argsort(-(users @ items.T), axis=1)[:, :3]
    found = np.take_along_axis(job.validation.toarray()[:, COLD], best, axis=1)
    return float(found.mean())
