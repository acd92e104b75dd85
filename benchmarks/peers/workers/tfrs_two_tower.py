"""TensorFlow Recommenders' two-tower retrieval: in-batch softmax with logQ correction."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.peers.workers.contract import Factors, Job, with_ids, work


class Tower(tf.keras.Model):
    """Sums the embeddings of a row's id and features."""

    def __init__(self, bags: sparse.csr_matrix, *, dim: int) -> None:
        """Take the bags [n, n_features], of which at most a few features a row are set."""
        super().__init__()
        counts = np.diff(bags.indptr)
        row = np.repeat(np.arange(bags.shape[0]), counts)
        slot = np.arange(bags.nnz) - np.repeat(bags.indptr[:-1], counts)
        shape = (bags.shape[0], int(counts.max()))
        features, weights = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.float32)
        features[row, slot], weights[row, slot] = bags.indices, bags.data
        self.features, self.weights_of = tf.constant(features), tf.constant(weights)
        self.table = tf.keras.layers.Embedding(bags.shape[1], dim)

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """Embed rows [batch]; [batch, dim] float32."""
        vectors = self.table(tf.gather(self.features, rows))
        weights = tf.gather(self.weights_of, rows)
        return tf.reduce_sum(vectors * weights[:, :, tf.newaxis], axis=1)


class TwoTower(tfrs.Model):
    """The library's retrieval task over the two towers."""

    def __init__(self, users: Tower, items: Tower, *, probability: NDArray[np.float32]) -> None:
        """Take the towers, and the share [n_items] that each item has of the interactions."""
        super().__init__()
        self.users, self.items = users, items
        self.probability = tf.constant(probability)
        self.task = tfrs.tasks.Retrieval(remove_accidental_hits=True)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The softmax loss of a batch of pairs, over the items of the batch."""
        return self.task(
            self.users(inputs["user"]),
            self.items(inputs["item"]),
            candidate_sampling_probability=tf.gather(self.probability, inputs["item"]),
            candidate_ids=inputs["item"],
            compute_metrics=False,
        )


def train(job: Job) -> Factors:
    """Fit the two towers; the vectors of all users and items."""
    settings: dict[str, Any] = dict(job.settings)
    tf.keras.utils.set_random_seed(job.seed)
    counts = job.train.getnnz(axis=0)
    model = TwoTower(
        Tower(with_ids(job.user_features, seen=job.train.getnnz(axis=1) > 0), dim=settings["dim"]),
        Tower(with_ids(job.item_features, seen=counts > 0), dim=settings["dim"]),
        probability=(counts / counts.sum()).astype(np.float32),
    )
    model.compile(optimizer=tf.keras.optimizers.Adagrad(settings["learning_rate"]))
    user, item = job.train.nonzero()
    rng = np.random.default_rng(job.seed)
    batch_size = min(settings["batch_size"], len(user))
    for epoch in range(settings["epochs"]):
        order = rng.permutation(len(user))[: len(user) // batch_size * batch_size]
        batches = order.reshape(-1, batch_size)
        pairs = tf.data.Dataset.from_tensor_slices({"user": user[batches], "item": item[batches]})
        history = model.fit(pairs.prefetch(2), verbose=0)
        print(f"epoch {epoch + 1}: loss {history.history['loss'][-1]:.4f}", flush=True)
    return Factors(
        users=model.users(tf.range(job.train.shape[0])).numpy(),
        items=model.items(tf.range(job.train.shape[1])).numpy(),
    )


if __name__ == "__main__":
    work(train, packages=("tensorflow-recommenders", "tensorflow"))
