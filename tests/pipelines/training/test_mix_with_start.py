from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.data.blocks import every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import user_figures
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import START, Fit, Fitted
from pipelines.training.folds import FoldBatches
from pipelines.training.mix_with_start import mix_with_start
from pipelines.training.model import build_model
from towers.layers import FeatureTable
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

World = tuple[Fitted, Fit]


@pytest.fixture
def world(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> World:
    """A model at its spectral start, as if one epoch had left it there."""
    config = tiny.config(evaluation={"metric": "recall@5"})
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
    )
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    model = build_model(config, batches)
    tf.train.Checkpoint(model=model).write(str(tmp_path / START))
    job = Fit(
        dataset=dataset,
        config=config,
        epochs=1,
        mined=None,
        validation=every_positive(prepared.interactions("validation")),
        directory=tmp_path,
        logs=tmp_path,
    )
    checkpoint = str(tmp_path / "epoch-1")
    return Fitted(model=model, best_epoch=1, records=(), checkpoint=checkpoint, mined=None), job


def _recall(model: TwoTower, job: Fit) -> float:
    """The mean recall of the validation users."""
    assert job.validation is not None
    vectors = embed(model, job.dataset, only_users=job.asked)
    return float(
        user_figures(
            match_scorer(vectors), test=job.validation, left_out=job.left_out, metric="recall@5"
        ).mean()
    )


def _add_noise(table: FeatureTable) -> None:
    noise = np.random.default_rng(3).standard_normal(table.v.shape).astype(np.float32)
    table.v.assign_add(noise * float(tf.math.reduce_std(table.v)) * 2)


def _values(table: FeatureTable) -> list[NDArray[np.float32]]:
    return [variable.numpy() for variable in table.trainable_variables]


def test_what_training_has_spoilt_goes_back_to_what_validation_likes_best(world: World) -> None:
    fitted, job = world
    table = fitted.model.features
    start = _values(table)
    _add_noise(table)
    trained, before = _values(table), _recall(fitted.model, job)
    mixed = mix_with_start(fitted, job, Reporter())
    assert 0.0 < mixed.start_share < 1.0
    assert _recall(mixed.model, job) > before
    expected = [t + mixed.start_share * (s - t) for s, t in zip(start, trained, strict=True)]
    for found, value in zip(_values(table), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    for variable in table.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(model=mixed.model).read(mixed.checkpoint)
    for found, value in zip(_values(table), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_what_is_better_than_any_mix_stays_as_it_is(world: World) -> None:
    fitted, job = world
    table = fitted.model.features
    trained = _values(table)
    _add_noise(table)
    tf.train.Checkpoint(model=fitted.model).write(str(job.directory / START))
    table.v.assign(trained[[value.ndim for value in trained].index(2)])
    mixed = mix_with_start(fitted, job, Reporter())
    assert (mixed.start_share, mixed.checkpoint) == (0.0, fitted.checkpoint)
    for found, value in zip(_values(table), trained, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize(("best_epoch", "share"), [(1, 0.25), (0, 0.0)])
def test_without_validation_the_share_of_another_fit_is_taken_if_anything_was_trained(
    world: World, best_epoch: int, share: float
) -> None:
    fitted, job = world
    table = fitted.model.features
    start = table.v.numpy()
    table.v.assign_add(tf.ones_like(table.v))
    mixed = mix_with_start(
        dataclasses.replace(fitted, best_epoch=best_epoch),
        dataclasses.replace(job, validation=None),
        Reporter(),
        share=0.25,
    )
    assert mixed.start_share == share
    np.testing.assert_allclose(table.v.numpy(), start + 1.0 - share, rtol=1e-5, atol=1e-6)
