"""Say where the time of a training step goes, and how far it is from its matrix products alone.

Run: .venv/bin/python -m benchmarks.step_profile [--config benchmarks/gowalla.toml]

Prints milliseconds a step, of the clock and of all processors together, which others at work on the
machine change little: the forward pass, the backward pass, the optimizer, for comparison the three
dense products of the scores (queries by negatives, and its two gradients) by themselves, and
assembling a batch, in a thread beside the steps. Then an epoch as `fit` runs it: what a step takes
there, and the share of the processors' time that is neither steps nor assembling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.final import read_final
from pipelines.config import load_config
from pipelines.training.fit import as_tensors, spec_of
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.two_tower import TwoTower

WARM_UP = 5

Times = NDArray[np.float64]
"""Milliseconds of the clock, and of the processors, [2]."""


def now() -> Times:
    """Both as they stand."""
    return np.array([time.perf_counter(), time.process_time()]) * 1e3


def milliseconds(call: Callable[[Any], object], inputs: list[Any]) -> Times:
    """The mean times of a call, after a few that are not counted."""
    for one in inputs[:WARM_UP]:
        call(one)
    start = now()
    for one in inputs[WARM_UP:]:
        call(one)
    return (now() - start) / len(inputs[WARM_UP:])


def gradients(model: TwoTower, batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
    """The forward and the backward pass."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch)
    return [found.values for found in tape.gradient(loss, model.trainable_variables)]


def products(batch: dict[str, tf.Tensor], *, dim: int) -> list[tf.Tensor]:
    """The dense products of one step, forward and backward."""
    queries = tf.ones([batch["n_queries"], 1 + dim])
    negatives = tf.ones([tf.size(batch["shared_source"]), 1 + dim])
    scores = tf.matmul(queries, negatives, transpose_b=True)
    return [tf.matmul(scores, negatives), tf.matmul(scores, queries, transpose_a=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("gowalla.toml"))
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    config = load_config(given.config)
    dataset, _ = read_final(config)
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    model = build_model(config, batches)

    start = now()
    arrays = list(islice(batches.epoch(0), given.steps))
    assembly = (now() - start) / len(arrays)
    tensors = [{name: tf.constant(value) for name, value in batch.items()} for batch in arrays]
    graph = {"input_signature": [spec_of(dataset)]}
    dim = config.model.embedding_dim
    forward = milliseconds(tf.function(model.compute_loss, **graph), tensors)
    both = milliseconds(tf.function(lambda batch: gradients(model, batch), **graph), tensors)
    step = milliseconds(tf.function(model.train_step, **graph), tensors)
    alone = milliseconds(tf.function(lambda batch: products(batch, dim=dim), **graph), tensors)
    start = now()
    model.fit(as_tensors(batches, epoch=1), steps_per_epoch=batches.n_batches, verbose=0)
    epoch = (now() - start) / batches.n_batches

    rows = int(np.mean([len(batch["rows"]) for batch in arrays]))
    print(f"{batches.batch_size} queries a step, {rows:,} rows touched, {dim} dimensions")
    for name, value in (
        ("forward", forward),
        ("backward", both - forward),
        ("optimizer", step - both),
        ("a step in all", step),
        ("the dense products alone", alone),
        ("assembling a batch, beside the steps", assembly),
        ("a step within an epoch of fit", epoch),
    ):
        clock, processors = value
        share = processors / step[1]
        print(f"{name:38} {clock:7.1f} ms {processors:7.1f} of processors {share:5.2f} of a step")
    rest = max(0.0, 1.0 - (step[1] + assembly[1]) / epoch[1])
    print(f"neither steps nor assembling: {rest:.0%} of an epoch's processor time")


if __name__ == "__main__":
    main()
