from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines import fit as fit_module
from pipelines.dataset import Dataset, interaction_matrix
from pipelines.fit import Fit, Fitted, fit, sampling_report
from pipelines.prepare import Prepared
from pipelines.progress import Advance, Reporter
from towers.errors import TrainingError
from towers.negatives import MinedNegatives

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

MakeJob = Callable[..., Fit]


@pytest.fixture
def make_job(tiny: Tiny, dataset: Dataset, tmp_path: Path) -> MakeJob:
    """Make a fit of five epochs, of a few steps each, in a folder of its own."""

    def make(folder: str = "fit", **changes: Any) -> Fit:
        training = {"epochs": 5, "patience": 2} | changes.pop("training", {})
        job = Fit(
            dataset=dataset,
            config=tiny.config(training=training),
            epochs=5,
            mined=None,
            validation=None,
            directory=tmp_path / folder / "state",
            logs=tmp_path / folder / "logs",
        )
        return dataclasses.replace(job, **changes)

    return make


@pytest.fixture
def validation(dataset: Dataset, prepared: Prepared) -> Any:
    return interaction_matrix(
        prepared.validation, user_ids=dataset.user_ids, item_ids=dataset.item_ids
    )


class Interrupting(Reporter):
    """Stops where an epoch has done two steps."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if (name, done) == (f"epoch {self.epoch}", 2):
                raise KeyboardInterrupt

        yield advance


def weights(fitted: Fitted) -> list[Any]:
    """The model's, its optimizer's and its number of steps."""
    model = fitted.model
    return [value.numpy() for value in (*model.trainable_variables, *model.optimizer.variables)]


def figures(fitted: Fitted) -> list[dict[str, float]]:
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in fitted.records
    ]


def script(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let validation find these figures, one an epoch."""
    remaining = iter(scores)

    class Scripted:
        def metric(self, name: str) -> float:
            return next(remaining)

    monkeypatch.setattr(fit_module, "evaluate", lambda *_, **__: Scripted())


def test_an_interrupted_fit_ends_as_if_it_had_not_been(make_job: MakeJob) -> None:
    whole = fit(make_job("whole", epochs=3), Reporter())
    job = make_job("parts", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(job, Interrupting(2))
    resumed = fit(job, Reporter())
    assert figures(resumed) == figures(whole)
    for got, expected in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_array_equal(got, expected)
    before = tf.io.gfile.stat(resumed.checkpoint + ".index").mtime_nsec
    again = fit(job, Interrupting(4))  # nothing is left to train
    assert figures(again) == figures(whole)
    assert tf.io.gfile.stat(again.checkpoint + ".index").mtime_nsec == before


def test_without_validation_all_epochs_are_run_and_the_last_is_taken(make_job: MakeJob) -> None:
    fitted = fit(make_job(), Reporter())
    assert [record["epoch"] for record in fitted.records] == [1, 2, 3, 4, 5]
    assert fitted.best_epoch == 5
    assert "recall@5" not in fitted.records[0]
    assert fitted.records[-1]["violators"] < 0.6 * fitted.records[0]["violators"]  # it learns


def test_validation_stops_early_and_the_best_epoch_is_taken(
    make_job: MakeJob, validation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = fit(make_job("two", epochs=2), Reporter())
    script(monkeypatch, [0.1, 0.5, 0.5, 0.4, 0.9])  # an equal figure is no improvement
    stopped = fit(make_job("stopped", validation=validation), Reporter())
    assert [record["recall@5"] for record in stopped.records] == [0.1, 0.5, 0.5, 0.4]
    assert stopped.best_epoch == 2
    for got, expected in zip(weights(stopped), weights(two), strict=True):
        np.testing.assert_array_equal(got, expected)
    script(monkeypatch, [])  # it stays stopped
    assert fit(make_job("stopped", validation=validation), Reporter()).best_epoch == 2


def test_validation_measures_the_configured_metric(make_job: MakeJob, validation: Any) -> None:
    fitted = fit(make_job(validation=validation, epochs=3), Reporter())
    found = [record["recall@5"] for record in fitted.records]
    assert max(found) > 0.4  # by chance 0.13
    assert fitted.best_epoch == 1 + found.index(max(found))


def test_only_the_latest_and_the_best_checkpoint_are_kept(
    make_job: MakeJob, validation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [0.9, 0.1, 0.1])
    job = make_job(validation=validation)
    fitted = fit(job, Reporter())
    assert fitted.checkpoint == str(job.directory / "epoch-1")
    kept = {path.stem for path in job.directory.glob("epoch-*")}
    assert kept == {"epoch-1", "epoch-3"}


@pytest.mark.parametrize("batch_size", [64, 10_000])  # several steps an epoch, and one
def test_a_fit_that_diverges_is_refused(make_job: MakeJob, batch_size: int) -> None:
    job = make_job(training={"learning_rate": 1e30, "batch_size": batch_size})
    with pytest.raises(TrainingError, match=r"epoch 1: expected.*finite.*lower training\.learning"):
        fit(job, Reporter())
    assert list(job.directory.iterdir()) == []


def test_figures_are_logged_for_tensorboard(make_job: MakeJob, validation: Any) -> None:
    job = make_job(validation=validation, epochs=2)
    fitted = fit(job, Reporter())
    logged: dict[tuple[int, str], float] = {}
    for path in job.logs.glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                logged[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    expected = {
        (int(record["epoch"]), name): pytest.approx(value)
        for record in fitted.records
        for name, value in record.items()
    }
    assert logged == expected
    assert (2, "recall@5") in logged


def test_what_was_sampled_is_reported_by_source(make_job: MakeJob) -> None:
    mined = MinedNegatives(items=np.tile(np.arange(40), (60, 1)), version=1, ranks=(1, 40))
    without = sampling_report(fit(make_job("without", epochs=1), Reporter()).records)
    report = sampling_report(fit(make_job("with", epochs=1, mined=mined), Reporter()).records)
    for found in (without, report):
        for what in ("share of sampled negatives", "share of hardest negatives"):
            assert sum(found[what].values()) == pytest.approx(1.0, abs=1e-5)
            assert found[what]["uniform"] > found[what]["popularity"] > 0
        assert all(popularity > 1 for popularity in found["mean popularity"].values())
        assert 0 < found["violators"]["share of pairs within the margin"] <= 1
    assert without["share of sampled negatives"]["mined"] == 0
    assert report["share of sampled negatives"]["mined"] > 0.05
