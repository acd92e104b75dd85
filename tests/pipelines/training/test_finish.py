"""Where no epoch is better than the start, a quarter of the way to the last one is taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.progress import Reporter
from pipelines.training import choose_balance
from pipelines.training.embed import embed
from pipelines.training.finish import finish
from pipelines.training.fit import START, Fit, Fitted
from pipelines.training.place_rare import FEW
from tests.pipelines.training.starts import best_of, untrained

Weights = list[NDArray[np.float32]]


def weights_of(fitted: Fitted) -> Weights:
    return [variable.numpy() for variable in fitted.model.features.trainable_variables]


def scores_of(fitted: Fitted, job: Fit, weights: Weights) -> NDArray[np.float32]:
    """What all users have for all items under these weights, which the model then has."""
    variables = fitted.model.features.trainable_variables
    for variable, value in zip(variables, weights, strict=True):
        variable.assign(value)
    vectors = embed(fitted.model, job.dataset)
    return vectors["user"] @ vectors["item"].T


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_a_quarter_of_the_way_is_taken_unless_the_start_is_clearly_better(
    popular_job: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(choose_balance, "FEATURES", (1.0,))
    monkeypatch.setattr(choose_balance, "MEAN_USERS", (0.0,))
    monkeypatch.setattr("pipelines.training.finish.measure_features", lambda *_: None)
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    start, rng = weights_of(fitted), np.random.default_rng(0)
    trained: Weights = [
        (value + rng.normal(0.0, 2.0 * value.std(), value.shape)).astype(np.float32)
        for value in start
    ]
    wanted = [share * one + (1 - share) * other for one, other in zip(start, trained, strict=True)]
    job = best_of(scores_of(fitted, popular_job, wanted), popular_job)
    for weights, name in ((trained, "epoch-2"), (start, START)):
        scores_of(fitted, job, weights)
        tf.train.Checkpoint(model=fitted.model).write(str(job.directory / name))
    fitted = dataclasses.replace(fitted, records=tuple({"epoch": float(n)} for n in range(3)))
    finished, trend = finish(fitted, job, Reporter(), stored=None)
    is_mixed = share < 1.0
    assert (finished.start_share, finished.best_epoch) == ((0.75, 2) if is_mixed else (0.0, 0))
    assert trend is None
    rare = job.dataset.id_rows("item")[job.dataset.interactions.item_counts <= FEW]
    others = np.setdiff1d(np.arange(job.dataset.vocabulary.n_rows), rare if is_mixed else [])
    kept = weights_of(finished)
    for found, value in zip(kept, wanted, strict=True):
        np.testing.assert_allclose(found[others], value[others], rtol=1e-5, atol=1e-6)
    scores_of(finished, job, trained)
    tf.train.Checkpoint(model=finished.model).read(finished.checkpoint)
    for found, value in zip(weights_of(finished), kept, strict=True):
        np.testing.assert_array_equal(found, value)
