"""Fit a ranker: epochs of binary cross-entropy, with checkpoints and early stopping."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.progress import Reporter
from pipelines.rank_config import RankConfig
from pipelines.ranking.examples import Examples, Reader, Tables
from pipelines.ranking.measure import auc, log_loss
from serving.atomic import write_text_atomic
from towers.errors import TrainingError
from towers.layers import FIRST_ORDER, VECTORS
from towers.optimizer import LazyAdam
from towers.ranking.pairs import pool
from towers.ranking.ranker import Ranker

STATE = "state.json"
"""The file in a fit's folder that records the finished epochs."""

SCORED_TOGETHER = 8192
"""How many examples are scored at a time."""


@dataclass(kw_only=True)
class State:
    """The finished epochs of a fit, and the names of its latest and best checkpoint."""

    records: list[dict[str, float]] = field(default_factory=list)
    best: int = 0

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the state of an interrupted fit; a new one where there is none."""
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedRanker:
    """A ranker at its best epoch."""

    ranker: Ranker
    scores: Scorer
    """Gives the logits of examples, [n]."""
    records: list[dict[str, float]]
    """The figures of each epoch: `epoch`, `loss`, `auc`, `log_loss`, `seconds`."""
    best_epoch: int
    checkpoint: Path
    """The prefix of its checkpoint."""


def fit_ranker(
    tables: Tables,
    train: Examples,
    validation: Examples,
    *,
    config: RankConfig,
    seed: int,
    folder: Path,
    reporter: Reporter | None = None,
) -> FittedRanker:
    """Train until the metric of validation has not improved for `patience` epochs.

    Interrupted, the same call goes on from the last finished epoch in `folder`.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    reporter = reporter or Reporter()
    folder.mkdir(parents=True, exist_ok=True)
    reader = Reader(tables)
    ranker = Ranker(tables.n_rows, len(tables.fields.names), config.model, seed=seed)
    optimizer = LazyAdam(
        config.learning_rate,
        rates={FIRST_ORDER: config.first_order_rate},
        l2=dict.fromkeys((FIRST_ORDER, VECTORS), config.model.penalty),
        epsilon=1e-8,
    )
    run_epoch = _epoch(ranker, reader, optimizer, batch_size=min(config.batch_size, len(train)))
    scores = Scorer(ranker, reader)
    _start(ranker, scores, optimizer, train)
    checkpoint = tf.train.Checkpoint(ranker=ranker, optimizer=optimizer)
    state = State.load(folder / STATE)
    if state.records:
        checkpoint.read(str(folder / f"epoch-{len(state.records)}")).assert_consumed()
    columns = [tf.constant(values) for values in vars(train).values()]
    while len(state.records) < config.epochs and not _is_over(state, config):
        start, epoch = time.perf_counter(), len(state.records) + 1
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        optimizer.learning_rate.assign(
            config.learning_rate * config.decay ** n_stalls(state, config)
        )
        loss = float(run_epoch(tf.constant(order), *columns))
        if not np.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}: expected a finite loss, received {loss}; lower rank.learning_rate"
            )
        logits = scores(validation)
        record = {
            "epoch": float(epoch),
            "loss": loss,
            "auc": auc(validation.labels, logits),
            "log_loss": log_loss(validation.labels, logits),
            "seconds": time.perf_counter() - start,
        }
        _keep(checkpoint, state, record, config=config, folder=folder)
        reporter.say(
            f"  epoch {epoch}/{config.epochs}  loss {loss:.4f}  validation AUC "
            f"{record['auc']:.4f}  log loss {record['log_loss']:.4f}  {record['seconds']:.1f} s"
        )
    best = folder / f"epoch-{state.best}"
    checkpoint.read(str(best)).assert_consumed()
    return FittedRanker(
        ranker=ranker,
        scores=scores,
        records=state.records,
        best_epoch=state.best,
        checkpoint=best,
    )


def _epoch(
    ranker: Ranker, reader: Reader, optimizer: LazyAdam, *, batch_size: int
) -> tf.types.experimental.GenericFunction:
    """An epoch as one graph: the order of the examples, and their columns, to the mean loss."""

    @tf.autograph.experimental.do_not_convert  # takes seconds, and no branch is on a tensor
    def step(columns: Sequence[tf.Tensor], labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        batch = reader.batch(*columns)
        with tf.GradientTape() as tape:
            loss = ranker.loss_of(pool(ranker, batch, reader.fields), labels, weights)
        variables = ranker.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def run(
        order: tf.Tensor,
        users: tf.Tensor,
        items: tf.Tensor,
        moments: tf.Tensor,
        labels: tf.Tensor,
        recall: tf.Tensor,
        weights: tf.Tensor,
    ) -> tf.Tensor:
        n_batches = tf.size(order) // batch_size
        total = tf.constant(0.0)
        for number in tf.range(n_batches):
            at = order[number * batch_size : (number + 1) * batch_size]
            columns = [tf.gather(column, at) for column in (users, items, moments, recall)]
            total += step(columns, tf.gather(labels, at), tf.gather(weights, at))
        return total / tf.cast(n_batches, tf.float32)

    return run


def _start(ranker: Ranker, scores: Scorer, optimizer: LazyAdam, train: Examples) -> None:
    """Make all variables, and let the bias be that of the labels."""
    scores(train.take(slice(0, 2)))
    rate = np.clip(np.average(train.labels, weights=train.weights), 1e-4, 1 - 1e-4)
    ranker.bias.assign([np.log(rate / (1 - rate))])
    optimizer.build(ranker.trainable_variables)


class Scorer:
    """Scores examples by one graph."""

    def __init__(self, ranker: Ranker, reader: Reader) -> None:
        """Make the graph."""
        whole, real = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32)

        @tf.function(input_signature=[whole, whole, whole, real], autograph=False)
        def score(
            users: tf.Tensor, items: tf.Tensor, moments: tf.Tensor, recall: tf.Tensor
        ) -> tf.Tensor:
            batch = reader.batch(users, items, moments, recall)
            return ranker(pool(ranker, batch, reader.fields)).logits

        self._score = score

    def __call__(self, examples: Examples) -> NDArray[np.float32]:
        """The logits of examples, [n]."""
        found = [np.empty(0, np.float32)]
        for start in range(0, len(examples), SCORED_TOGETHER):
            part = examples.take(slice(start, start + SCORED_TOGETHER))
            logits = self._score(part.users, part.items, part.moments, part.recall)
            found.append(logits.numpy())
        return np.concatenate(found)


def _is_over(state: State, config: RankConfig) -> bool:
    """Whether validation has not improved for `patience` epochs."""
    return len(state.records) - state.best >= config.patience


def n_stalls(state: State, config: RankConfig) -> int:
    """How many epochs were no better than the best before them."""
    worth = _worth(state, config)
    return int((worth[1:] <= np.maximum.accumulate(worth)[:-1]).sum())


def _worth(state: State, config: RankConfig) -> NDArray[np.float64]:
    """What each epoch is worth, the larger the better."""
    found = np.nan_to_num([one[config.metric] for one in state.records])
    return found if config.metric == "auc" else -found


def _keep(
    checkpoint: tf.train.Checkpoint,
    state: State,
    record: dict[str, float],
    *,
    config: RankConfig,
    folder: Path,
) -> None:
    """Write the checkpoint of the epoch and then the state; remove checkpoints not needed."""
    state.records.append(record)
    latest = len(state.records)
    state.best = 1 + int(np.argmax(_worth(state, config)))
    checkpoint.write(str(folder / f"epoch-{latest}"))
    write_text_atomic(folder / STATE, json.dumps(vars(state), indent=2))
    for path in folder.glob("epoch-*"):
        if path.name.split(".")[0] not in {f"epoch-{latest}", f"epoch-{state.best}"}:
            path.unlink()
