from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Advance, Reporter
from pipelines.training import fit as fit_module
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import STATE, Fit, FitState, Fitted, fit
from pipelines.training.report_sampling import report_sampling
from towers.errors import TrainingError
from towers.negatives import MinedNegatives

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

MakeJob = Callable[..., Fit]
SCORES = (0.05, 0.1, 0.5, 0.5, 0.4)
"""Figures of which the second epoch's is the best: an equal one is no improvement."""


@pytest.fixture(scope="module")
def validation(dataset: Dataset, prepared: Prepared) -> Any:
    return every_positive(prepared.interactions("validation"))


@pytest.fixture(scope="module")
def make_job(tiny: Tiny, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> MakeJob:
    """Make a fit of at most five epochs, a few steps each, that keeps its state in a folder."""
    root = tmp_path_factory.mktemp("fits")

    def make(folder: str, *, training: dict[str, Any] | None = None, **changes: Any) -> Fit:
        job = Fit(
            dataset=dataset,
            config=tiny.config(training={"epochs": 5, "patience": 2} | (training or {})),
            epochs=5,
            mined=None,
            validation=None,
            directory=root / folder / "state",
            logs=root / folder / "logs",
        )
        return dataclasses.replace(job, **changes)

    return make


@pytest.fixture(scope="module")
def whole(make_job: MakeJob, validation: Any) -> Fitted:
    """Three epochs with validation."""
    return fit(make_job("whole", epochs=3, validation=validation), Reporter())


@pytest.fixture(scope="module")
def two(make_job: MakeJob) -> Fitted:
    """Two epochs without validation."""
    return fit(make_job("two", epochs=2), Reporter())


@pytest.fixture(scope="module")
def stopped(make_job: MakeJob, validation: Any) -> tuple[Fit, Fitted]:
    """A fit whose validation found `SCORES`."""
    job = make_job("stopped", validation=validation)
    with scripted(SCORES):
        return job, fit(job, Reporter())


class Interrupting(Reporter):
    """Stops where an epoch has done two steps or a few more."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    @contextmanager
    def bar(self, name: str, total: int, *, unit: str | None = None) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if name.partition(" of ")[0] == f"epoch {self.epoch}" and done >= 2:
                raise KeyboardInterrupt

        yield advance


@contextmanager
def scripted(scores: tuple[float, ...]) -> Iterator[None]:
    """Let validation find these figures, one an epoch, and no more."""
    remaining = iter(scores)

    class Scripted:
        def metric(self, name: str) -> float:
            return next(remaining)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "evaluate", lambda *_, **__: Scripted())
        yield


def assert_same(got: Fitted, expected: Fitted) -> None:
    """The same weights, the same state of the optimizer, the same number of steps."""
    left, right = (
        (*m.trainable_variables, *m.optimizer.variables) for m in (got.model, expected.model)
    )
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def figures(fitted: Fitted) -> list[dict[str, float]]:
    """The records, but for the time that they took."""
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in fitted.records
    ]


@pytest.mark.slow
def test_an_interrupted_fit_ends_as_if_it_had_not_been(
    make_job: MakeJob, validation: Any, whole: Fitted
) -> None:
    job = make_job("parts", epochs=3, validation=validation)
    with pytest.raises(KeyboardInterrupt):
        fit(job, Interrupting(2))
    resumed = fit(job, Reporter())
    assert figures(resumed) == figures(whole)
    assert_same(resumed, whole)
    again = fit(job, Interrupting(4))  # nothing is left to train
    assert again.records == resumed.records
    assert_same(again, whole)


@pytest.mark.slow
def test_validation_measures_the_model_as_it_is_after_the_epoch(
    tiny: Tiny, dataset: Dataset, validation: Any, whole: Fitted
) -> None:
    found = [record["recall@5"] for record in whole.records]
    assert whole.best_epoch == int(np.argmax(found))
    expected = evaluate(
        match_scorer(embed(whole.model, dataset)),
        train=every_positive(dataset.interactions),
        test=validation,
        config=tiny.config().evaluation,
    )
    assert max(found) == expected.metric("recall@5")
    assert max(found) > 0.3  # by chance 0.13
    assert whole.records[-1]["violators"] < 0.8 * whole.records[1]["violators"]


def test_without_validation_all_epochs_are_run_and_the_last_is_taken(two: Fitted) -> None:
    assert [record["epoch"] for record in two.records] == [0, 1, 2]
    assert two.best_epoch == 2
    assert "recall@5" not in two.records[1]


def test_validation_stops_early_and_the_best_epoch_is_taken(
    stopped: tuple[Fit, Fitted], two: Fitted
) -> None:
    job, fitted = stopped
    assert tuple(record["recall@5"] for record in fitted.records) == SCORES
    assert fitted.best_epoch == 2
    assert_same(fitted, two)
    with scripted(()):  # it stays stopped
        assert fit(job, Reporter()).best_epoch == 2


def test_only_the_first_the_latest_and_the_best_checkpoint_are_kept(
    stopped: tuple[Fit, Fitted],
) -> None:
    job, fitted = stopped
    assert fitted.checkpoint == str(job.directory / "epoch-2")
    assert {path.stem for path in job.directory.glob("epoch-*")} == {
        "epoch-0",
        "epoch-2",
        "epoch-4",
    }


def test_figures_are_logged_for_tensorboard(stopped: tuple[Fit, Fitted]) -> None:
    job, fitted = stopped
    logged: dict[tuple[int, str], float] = {}
    for path in job.logs.glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                logged[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    assert logged == {
        (int(record["epoch"]), name): pytest.approx(value)
        for record in fitted.records
        for name, value in record.items()
    }
    assert logged[2, "recall@5"] == pytest.approx(SCORES[2])


@pytest.mark.parametrize("batch_size", [64, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_fit_that_diverges_is_refused(make_job: MakeJob, batch_size: int) -> None:
    training = {"learning_rate": 1e30, "batch_size": batch_size}
    job = make_job(f"diverges-{batch_size}", training=training)
    with pytest.raises(TrainingError, match=r"epoch 1: expected.*finite.*lower training\.learning"):
        fit(job, Reporter())
    assert FitState.load(job.directory / STATE).epochs == 0


@pytest.mark.slow
def test_what_was_sampled_is_reported_by_source(make_job: MakeJob, two: Fitted) -> None:
    mined = MinedNegatives(
        items=np.tile(np.arange(40, dtype=np.int32), (60, 1)), version=1, ranks=(1, 40)
    )
    fitted = fit(make_job("mined", epochs=1, mined=mined), Reporter())
    without, report = report_sampling(two.records), report_sampling(fitted.records)
    for found in (without, report):
        for what in ("share of sampled negatives", "share of hardest negatives"):
            assert sum(found[what].values()) == pytest.approx(1.0, abs=1e-5)
            assert found[what]["uniform"] > found[what]["popularity"] > 0
        assert all(popularity > 1 for popularity in found["mean popularity"].values())
        assert 0 < found["violators"]["share of pairs within the margin"] <= 1
    assert without["share of sampled negatives"]["mined"] == 0
    assert report["share of sampled negatives"]["mined"] > 0.05


def test_without_its_optimizer_a_fitted_model_is_the_same_to_all_who_use_it(two: Fitted) -> None:
    lighter = two.without_optimizer()
    assert lighter.checkpoint == two.checkpoint
    assert lighter.model.features is two.model.features
    assert getattr(lighter.model, "optimizer", None) is None
