"""Fit one model: epochs over fold batches, with checkpoints, early stopping and logs."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import left_out
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import Scorer, evaluate
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.progress import Reporter
from pipelines.training.decided import Decided
from pipelines.training.embed import embed, match_scorer
from pipelines.training.folds import FoldBatches
from pipelines.training.measure_context import AskedAt, moment_scorer
from pipelines.training.model import build_model
from pipelines.training.parent import Parent
from pipelines.workers.workers import ALONE, Workers
from serving.atomic import write_text_atomic
from towers.errors import TrainingError
from towers.negatives import MinedNegatives
from towers.two_tower import BATCH_SPEC, TwoTower

STATE = "state.json"
"""The file in a fit's directory that records the finished epochs."""

START = "epoch-0"
"""The checkpoint there of the model as it starts."""

Record = dict[str, float]
"""The figures of one epoch: `epoch` (from 1), `loss`, `seconds`, the metrics, and validation.

Epoch 0 is the model as it starts, which has `seconds` and validation alone.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """The inputs of a fit; `directory` keeps its state, so that it can be resumed."""

    dataset: Dataset
    config: RunConfig
    epochs: int
    mined: MinedNegatives | None
    validation: sparse.csr_array | None
    """Positives [n_users, n_items] that decide when to stop; None trains all `epochs`."""
    moments: AskedAt | None = None
    """With a context, the validation queries at the moments of their positives."""
    not_yet: NotYet | None = None
    """What is not there yet when the validation users ask; None where every item is."""
    directory: Path
    logs: Path
    """The folder of the logs for TensorBoard."""
    on_epoch: Callable[[Record], None] | None = None
    """Called with the figures of an epoch after its checkpoint and state are written."""
    parent: Parent | None = None
    """The version whose vectors the fit starts from."""
    spectral: Path | None = None
    """The file of what `start_vectors` found for these data; computed where none is given."""
    workers: Workers = ALONE
    """Those that train; this is the fit of the chief, which the others follow."""

    @cached_property
    def known(self) -> sparse.csr_array:
        """The positives of the validation users, [n_users, n_items]; others' rows empty."""
        return self.dataset.interactions.of(self.asked)

    @cached_property
    def left_out(self) -> LeftOut:
        """What is not recommended to the validation users."""
        what = self.config.evaluation.leave_out
        seen = left_out(self.dataset.interactions, self.asked, what=what)
        return LeftOut(seen, self.not_yet)

    @property
    def asked(self) -> NDArray[np.int64]:
        """The rows of the validation users."""
        if self.validation is None:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(np.diff(self.validation.indptr))


@dataclass(kw_only=True)
class FitState:
    """The state of a fit: the finished epochs, and the names of the latest and best checkpoints."""

    records: list[Record] = field(default_factory=list)
    best_epoch: int = 0
    latest: str = ""
    best: str = ""

    @property
    def epochs(self) -> int:
        """The number of finished epochs, without the start."""
        return sum(record["epoch"] > 0 for record in self.records)

    @classmethod
    def load(cls, path: Path) -> FitState:
        """Read the state of an interrupted fit; a new one where there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()

    def save(self, path: Path) -> None:
        """Write the state, which replaces the earlier one."""
        write_text_atomic(path, json.dumps(vars(self), indent=2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted(Decided):
    """A model at its best epoch."""

    model: TwoTower
    best_epoch: int
    records: tuple[Record, ...]
    checkpoint: str
    """The path prefix of the best epoch's checkpoint."""
    mined: MinedNegatives | None
    """The mined negatives that it was trained with."""

    @property
    def decided(self) -> Decided:
        """What was done to it, to be done to the fit that is published."""
        names = [field.name for field in dataclasses.fields(Decided)]
        return Decided(**{name: getattr(self, name) for name in names})

    def kept(self, **changes: Any) -> Fitted:
        """The same with `changes`, and the model as it is now in a checkpoint of its own."""
        checkpoint = str(Path(self.checkpoint).with_name("calibrated"))
        tf.train.Checkpoint(model=self.model).write(checkpoint)
        return dataclasses.replace(self, checkpoint=checkpoint, **changes)

    def without_optimizer(self) -> Fitted:
        """The same without the state of the optimizer, which the checkpoint has."""
        return dataclasses.replace(self, model=self.model.without_optimizer())


def fit(job: Fit, reporter: Reporter) -> Fitted:
    """Train until all epochs are done or validation stops improving; resume from a checkpoint.

    With `validation`, the model is that of the best epoch, which may be the start; without, that
    of the last.

    Raises:
        TrainingError: the loss or the weights are no longer finite numbers.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    state = FitState.load(job.directory / STATE)
    batches = batches_of(job)
    start = time.perf_counter()
    spectral = None if job.spectral is None else np.load(job.spectral, mmap_mode="r")
    model = build_model(
        job.config,
        batches,
        parent=job.parent,
        spectral=spectral,
        reporter=reporter,
        is_restored=bool(state.latest),
    )
    del spectral
    seconds = time.perf_counter() - start
    checkpoint = tf.train.Checkpoint(model=model)
    if state.latest:
        checkpoint.read(str(job.directory / state.latest)).assert_existing_objects_matched()
    writer = tf.summary.create_file_writer(str(job.logs))
    while len(state.records) <= job.epochs and not _is_over(state, job):
        if state.records:
            job.workers.tell({"epoch": state.epochs, "checkpoint": state.latest})
            record = train_epoch(model, batches, state.epochs, job=job, reporter=reporter)
        else:
            record = {"epoch": 0.0, "seconds": seconds}
        record |= _validate(model, job)
        with writer.as_default(step=int(record["epoch"])):
            for name, value in record.items():
                tf.summary.scalar(name, value)
        reporter.tracking.figures(job.logs.name, record, step=int(record["epoch"]))
        _keep(checkpoint, state, record, job=job)
        reporter.say(_describe(record, job))
        if record["epoch"] and job.on_epoch is not None:
            job.on_epoch(record)
    job.workers.tell(None)
    best = str(job.directory / state.best)
    checkpoint.read(best).assert_existing_objects_matched()
    return Fitted(
        model=model,
        best_epoch=state.best_epoch,
        records=tuple(state.records),
        checkpoint=best,
        mined=job.mined,
    )


def follow(job: Fit, reporter: Reporter) -> None:
    """Train this worker's share of every batch of the chief's fit, until that is over.

    Parameters, and what the optimizer keeps, are read from the checkpoint that the chief goes on
    from. Nothing is evaluated or written here.

    Raises:
        TrainingError: as the chief's; or the tables of the workers are not equal any more.
    """
    told = job.workers.tell()
    if told is None:
        return
    batches = batches_of(job)
    model = build_model(job.config, batches, is_restored=True)
    checkpoint = tf.train.Checkpoint(model=model)
    checkpoint.read(str(job.directory / told["checkpoint"])).assert_existing_objects_matched()
    while told is not None:
        train_epoch(model, batches, told["epoch"], job=job, reporter=reporter)
        told = job.workers.tell()


def batches_of(job: Fit) -> FoldBatches:
    """The batches that a fit trains on, or this worker's share of them."""
    training, seed = job.config.training, job.config.seed
    return FoldBatches.build(job.dataset, training, mined=job.mined, seed=seed, workers=job.workers)


def _is_over(state: FitState, job: Fit) -> bool:
    """Whether validation has not improved for `patience` epochs."""
    waited = state.epochs - state.best_epoch
    return job.validation is not None and waited >= job.config.training.patience


def train_epoch(
    model: TwoTower, batches: FoldBatches, epoch: int, *, job: Fit, reporter: Reporter
) -> Record:
    """Run the epoch after `epoch`; its loss, its time in seconds and what was sampled.

    Raises:
        TrainingError: the loss or the length of the weights is not a finite number, or the workers
            have come to differ.
    """
    start = time.perf_counter()
    name = f"epoch {epoch + 1} of {job.epochs}"
    with reporter.bar(name, batches.n_batches, unit="steps") as advance:
        dataset = as_tensors(batches, epoch=epoch)
        history = model.fit(
            dataset,
            steps_per_epoch=batches.n_batches,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[_Progress(advance)],
        )
    figures = {name: float(values[-1]) for name, values in history.history.items()}
    figures["loss"] = figures.pop("mean_loss")  # Keras gives the loss of the last batch
    length = float(tf.linalg.global_norm(model.trainable_variables))
    if not np.isfinite(figures["loss"] + length):
        raise TrainingError(
            f"epoch {epoch + 1}: expected a finite loss and weights of finite length, received "
            f"{figures['loss']} and {length}; lower training.learning_rate"
        )
    job.workers.check_equal(model.trainable_variables, epoch=epoch + 1)
    del figures["regularization_loss"], figures["total_loss"]
    candidates = len(batches.sampler.candidates)
    figures["steps"] = float(batches.n_batches)
    figures["items_sampled_from"] = float(candidates)
    figures["items_never_chosen"] = float(len(batches.dataset.item_ids) - candidates)
    return {"epoch": float(epoch + 1), "seconds": time.perf_counter() - start} | figures


class _Progress(keras.callbacks.Callback):
    """Tells how many steps were run since it last told."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        super().__init__()
        self._advance, self._done = advance, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called after some steps, of which `batch` is the last, from 0."""
        del logs
        self._advance(batch + 1 - self._done)
        self._done = batch + 1


def as_tensors(batches: FoldBatches, *, epoch: int) -> tf.data.Dataset:
    """The batches of an epoch as tensors, prepared while the steps run."""
    options = tf.data.Options()
    options.autotune.enabled = False  # the end of the dataset waits for its sleeping thread
    dataset = tf.data.Dataset.from_generator(
        lambda: batches.epoch(epoch), output_signature=spec_of(batches.dataset)
    )
    return dataset.prefetch(2).with_options(options)


def spec_of(dataset: Dataset) -> dict[str, tf.TensorSpec]:
    """`BATCH_SPEC` with the lengths of the vectors, so that a graph has nothing for those of 0."""
    own, brought = (dataset.dense(side).x.shape[1] for side in ("user", "item"))
    widths = {"user_dense": own + brought, "item_dense": brought}
    return BATCH_SPEC | {name: tf.TensorSpec([None, n]) for name, n in widths.items()}


def _validate(model: TwoTower, job: Fit) -> Record:
    """Measure the deciding metric on the validation positives, if there are any.

    Users have what they did up to then, and are asked at the moment of each positive where there is
    a context, as requests are.
    """
    if job.validation is None:
        return {}
    asked = validation_queries(model, job, validation=job.validation)
    result = evaluate(
        asked.scorer,
        train=asked.known,
        left_out=asked.left_out,
        item_counts=job.dataset.interactions.item_counts,
        test=asked.wanted,
        config=job.config.evaluation,
    )
    metric = job.config.evaluation.metric
    return {metric: result.metric(metric)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationQueries:
    """Queries that decide, [n], and what scores the items for them."""

    scorer: Scorer
    known: sparse.csr_array
    """The positives of their users, [n, n_items]."""
    left_out: LeftOut
    """What is not recommended to them."""
    wanted: sparse.csr_array
    """What they are to find, [n, n_items]."""


def validation_queries(
    model: TwoTower, job: Fit, *, validation: sparse.csr_array
) -> ValidationQueries:
    """Ask for the users of the validation part, at the moments of their positives if there are."""
    vectors, moments = embed(model, job.dataset, only_users=job.asked), job.moments
    if moments is None:
        scorer = match_scorer(vectors)
        return ValidationQueries(
            scorer=scorer, known=job.known, left_out=job.left_out, wanted=validation
        )
    return ValidationQueries(
        scorer=moment_scorer(model, job.dataset, moments, vectors=vectors),
        known=sparse.csr_array(job.known[moments.users]),
        left_out=job.left_out.take(moments.users),
        wanted=moments.wanted,
    )


def _keep(checkpoint: tf.train.Checkpoint, state: FitState, record: Record, *, job: Fit) -> None:
    """Write the checkpoint of the epoch and then the state; remove checkpoints not needed."""
    state.records.append(record)
    state.latest = f"epoch-{state.epochs}"
    checkpoint.write(str(job.directory / state.latest))
    metric = job.config.evaluation.metric
    if job.validation is None or record[metric] > _best_so_far(state, metric):
        state.best, state.best_epoch = state.latest, state.epochs
    state.save(job.directory / STATE)
    for path in job.directory.glob("epoch-*"):
        if path.name.split(".")[0] not in {START, state.latest, state.best}:
            path.unlink()


def _best_so_far(state: FitState, metric: str) -> float:
    """The best validation figure before the latest epoch."""
    return max((record[metric] for record in state.records[:-1]), default=-1.0)


def _describe(record: Record, job: Fit) -> str:
    """The line that is printed for an epoch."""
    metric = job.config.evaluation.metric
    validation = f"  validation {metric} {record[metric]:.4f}" if metric in record else ""
    if not record["epoch"]:
        return f"  start{validation}  {record['seconds']:.1f} s"
    return (
        f"  epoch {record['epoch']:.0f}/{job.epochs}  loss {record['loss']:.4f}"
        f"  violators {record['violators']:.0%}{validation}  {record['seconds']:.1f} s"
    )
