"""Train one step with two workers, and the same step in one piece; print how far apart they end.

One process for each worker, as `TF_CONFIG` describes them. Then the tables are made to differ, and
at last worker 1 is killed. The chief prints what it has seen of all that.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pipelines.workers.cluster import join, read_cluster
from pipelines.workers.workers import ALONE, Workers
from towers.environment import cluster_text
from towers.errors import RecallError
from towers.layers import FeatureTable
from towers.optimizer import LazyAdam
from towers.two_tower import TwoTower

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]

N_ROWS, N_ITEMS, N_SHARED = 30, 12, 6


def make_batch(number: int) -> Arrays:
    """Draw queries and items over rows that the other batch touches too; their sizes differ."""
    rng = np.random.default_rng(number)
    n_queries, n_rows = 5 + number, 18 + number
    rows = rng.permutation(N_ROWS)[:n_rows]
    queries, items = np.arange(n_queries), np.arange(N_ITEMS)
    return {
        "rows": rows.astype(np.int64),
        "user_indices": np.stack([queries, rng.integers(n_rows, size=n_queries)], axis=1),
        "user_values": np.ones(n_queries, np.float32),
        "n_queries": np.array(n_queries),
        "item_indices": np.stack([items, rng.permutation(n_rows)[:N_ITEMS]], axis=1),
        "item_values": np.ones(N_ITEMS, np.float32),
        "item_popularity": np.ones(N_ITEMS, np.float32),
        "user_dense": np.ones((n_queries, 2), np.float32),
        "item_dense": np.ones((N_ITEMS, 1), np.float32),
        "positive_query": queries.astype(np.int32),
        "positive_item": (N_SHARED + queries % (N_ITEMS - N_SHARED)).astype(np.int32),
        "positive_weight": rng.uniform(0.5, 2, n_queries).astype(np.float32),
        "shared_source": np.zeros(N_SHARED, np.int8),
        "mined_item": np.full((n_queries, 1), -1, np.int32),
        "explicit_item": np.full((n_queries, 1), -1, np.int32),
        "explicit_weight": np.zeros((n_queries, 1), np.float32),
        "known": np.empty((0, 2), np.int32),
    }


def make_model(workers: Workers) -> TwoTower:
    """Make the same untrained model each time."""
    table = FeatureTable(N_ROWS, embedding_dim=4, init_scale=0.3, seed=0)
    exchange = workers if workers.count > 1 else None
    model = TwoTower(table, margin=1.0, hardest=3, l2=0.01, exchange=exchange)
    optimizer: keras.optimizers.Optimizer = LazyAdam(
        0.1, add_up=exchange.add_up if exchange else None
    )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    return model


def train_in_one(batches: list[Arrays]) -> TwoTower:
    """Average the losses of the batches by their weights, and apply the gradient once."""
    model = make_model(ALONE)
    weights = [float(batch["positive_weight"].sum()) for batch in batches]
    with tf.GradientTape() as tape:
        losses = [
            model.compute_loss(batch) * weight
            for batch, weight in zip(batches, weights, strict=True)
        ]
        loss = tf.add_n(losses) / sum(weights)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model


def complaint(call: Callable[[], object]) -> str:
    """What a call raises, and after how long it does."""
    start = time.perf_counter()
    try:
        call()
    except RecallError as error:
        return f"{type(error).__name__} after {time.perf_counter() - start:.0f} s: {error}"
    return "nothing"


def wait_for_the_other(workers: Workers) -> None:
    """Wait for a worker that is not there any more."""
    with workers.together():
        workers.tell()


def main() -> None:
    """Print what the chief has seen."""
    workers = join(read_cluster(cluster_text()), lambda line: print(line, flush=True))
    batches = [make_batch(0), make_batch(1)]
    start, together, apart = make_model(ALONE), train_in_one(batches), make_model(workers)
    own = tf.data.Dataset.from_tensors(batches[workers.index])
    apart.fit(own, verbose=0)
    workers.check_equal(apart.trainable_variables, epoch=1)
    told = workers.tell("é" if workers.is_chief else "not heard")
    part = tf.constant([1.0, 2.0]) * float(workers.index + 1), tf.Variable([0.0, 0.0])
    ((added_up, _),) = workers.add_up([part])
    v = [model.features.v.numpy() for model in (start, together, apart)]
    w = [model.features.w.numpy() for model in (start, together, apart)]
    common = set(batches[0]["rows"].tolist()) & set(batches[1]["rows"].tolist())
    apart.features.w.assign_add(tf.fill([N_ROWS], float(workers.index)))
    answer = {
        "worker": workers.index,
        "told": told,
        "moved": float(np.abs(v[1] - v[0]).max()),
        "difference": float(max(np.abs(v[1] - v[2]).max(), np.abs(w[1] - w[2]).max())),
        "dense": added_up.numpy().tolist(),
        "rows of both": len(common),
        "diverged": complaint(lambda: workers.check_equal(apart.trainable_variables, epoch=2)),
        "other job": complaint(lambda: workers.check_same_job(str(workers.index))),
    }
    if not workers.is_chief:
        os.kill(os.getpid(), signal.SIGKILL)
    answer["lost"] = complaint(lambda: wait_for_the_other(workers))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
