"""Train one step on two replicas, and the same step in one piece; print how far apart they end.

Runs in a process of its own: TensorFlow cuts the CPU into devices only before it has started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras as keras

from towers.layers import FeatureTable
from towers.optimizer import LazyAdam
from towers.two_tower import BATCH_SPEC, TwoTower

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]

N_ROWS, N_QUERIES, N_ITEMS = 30, 6, 12


def make_batch(seed: int) -> Arrays:
    """Draw queries and items over rows that batches of other seeds touch too."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(N_ROWS)[:20]
    queries, items = np.arange(N_QUERIES), np.arange(N_ITEMS)
    shared = items[6:]
    return {
        "rows": rows.astype(np.int64),
        "user_indices": np.stack([queries, rng.integers(20, size=N_QUERIES)], axis=1),
        "user_values": np.ones(N_QUERIES, np.float32),
        "n_queries": np.array(N_QUERIES),
        "item_indices": np.stack([items, rng.permutation(20)[:N_ITEMS]], axis=1),
        "item_values": np.ones(N_ITEMS, np.float32),
        "item_popularity": np.ones(N_ITEMS, np.float32),
        "user_dense": np.ones((N_QUERIES, 2), np.float32),
        "item_dense": np.ones((N_ITEMS, 1), np.float32),
        "positive_query": queries.astype(np.int32),
        "positive_item": items[:6].astype(np.int32),
        "positive_weight": np.ones(N_QUERIES, np.float32),
        "shared_item": shared.astype(np.int32),
        "shared_source": np.zeros(len(shared), np.int8),
        "mined_item": np.full((N_QUERIES, 1), -1, np.int32),
        "explicit_item": np.full((N_QUERIES, 1), -1, np.int32),
        "explicit_weight": np.zeros((N_QUERIES, 1), np.float32),
        "known": np.empty((0, 2), np.int32),
    }


def make_model() -> TwoTower:
    """Make the same untrained model each time."""
    table = FeatureTable(N_ROWS, embedding_dim=4, init_scale=0.3, seed=0)
    model = TwoTower(table, margin=1.0, hardest=3, l2=0.01)
    optimizer: keras.optimizers.Optimizer = LazyAdam(0.1)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    return model


def train_on_replicas(batches: list[Arrays]) -> TwoTower:
    """Give each replica one of the batches, and train one step."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = make_model()

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        del context

        def generate() -> Iterator[Arrays]:
            yield from batches

        return tf.data.Dataset.from_generator(generate, output_signature=BATCH_SPEC)

    model.fit(strategy.distribute_datasets_from_function(dataset), steps_per_epoch=1, verbose=0)
    return model


def train_in_one(batches: list[Arrays]) -> TwoTower:
    """Add the losses of the batches up, and apply their gradient once."""
    model = make_model()
    with tf.GradientTape() as tape:
        loss = tf.add_n([model.compute_loss(batch) for batch in batches])
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model


def main() -> None:
    """Print the largest difference, and how far the step went."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    batches = [make_batch(1), make_batch(2)]
    start, together, apart = make_model(), train_in_one(batches), train_on_replicas(batches)
    tables = [model.features.v.numpy() for model in (start, together, apart)]
    common = set(batches[0]["rows"].tolist()) & set(batches[1]["rows"].tolist())
    answer = {
        "difference": float(np.abs(tables[1] - tables[2]).max()),
        "moved": float(np.abs(tables[1] - tables[0]).max()),
        "rows of both": len(common),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
