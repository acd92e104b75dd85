"""Ranker: the model of the second stage, from active features to a logit and its parts."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

from towers.layers import FeatureTable
from towers.ranking.bags import Entries
from towers.ranking.interactions import INTERACTIONS, Parts
from towers.ranking.settings import RankerSettings


class Pooled(NamedTuple):
    """The fields of n owners."""

    first: tf.Tensor
    """sum_i w_i x_i of each field, and its pairs of features where they count, [n, n_fields]."""
    vectors: tf.Tensor
    """sum_i v_i x_i of each field, [n, n_fields, width]."""

    def take(self, places: tf.Tensor) -> Pooled:
        """Those of some owners, one of them maybe several times."""
        return Pooled(take_rows(self.first, places), take_rows(self.vectors, places))

    def plus(self, other: Pooled) -> Pooled:
        """The sum of two parts of the same owners' features."""
        return Pooled(self.first + other.first, self.vectors + other.vectors)


class Ranked(NamedTuple):
    """The scores of n examples, and what they are sums of."""

    logits: tf.Tensor
    """log p / (1 - p) of each, [n]."""
    bias: tf.Tensor
    """What all have in common, []."""
    first: tf.Tensor
    """What each field adds by itself, [n, n_fields]."""
    parts: Parts
    """What its pairs add, and a network."""


class Ranker(keras.Model):
    """Scores examples whose fields are pooled: logit = bias + sum of fields + of pairs + network.

    A field that has several features, such as a list or a history, meets others by the sum of their
    vectors; features of one field meet each other only if `settings.within_fields` says so.
    """

    def __init__(
        self, n_rows: int, n_fields: int, settings: RankerSettings, *, seed: int = 0
    ) -> None:
        """Make the parameters of `n_rows` features."""
        super().__init__(name="ranker")
        kind = INTERACTIONS[settings.kind]
        self.settings, self.n_fields = settings, n_fields
        self.features = FeatureTable(
            n_rows,
            embedding_dim=kind.width(n_fields, settings.embedding_dim),
            init_scale=settings.init_scale,
            seed=seed,
        )
        self.interaction = kind(n_fields, settings, seed=seed)
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def pool(self, entries: Entries, *, n: tf.Tensor, n_fields: int) -> Pooled:
        """Sum the parameters of the active features of n owners by their `n_fields` fields."""
        n = tf.cast(n, tf.int64)
        w, v = self.features(entries.rows)
        place, size = entries.owners * n_fields + entries.fields, n * n_fields
        first = tf.math.unsorted_segment_sum(w * entries.x, place, size)
        vectors = tf.math.unsorted_segment_sum(v * entries.x[:, tf.newaxis], place, size)
        if self.settings.within_fields:
            squares = tf.reduce_sum(tf.square(v * entries.x[:, tf.newaxis]), axis=1)
            squares = tf.math.unsorted_segment_sum(squares, place, size)
            first += (tf.reduce_sum(tf.square(vectors), axis=1) - squares) / 2.0
        width = self.features.v.shape[1]  # what is gathered may have no static shape
        return Pooled(tf.reshape(first, [-1, n_fields]), tf.reshape(vectors, [-1, n_fields, width]))

    def call(self, pooled: Pooled, training: bool = False) -> Ranked:
        """Score n examples by their fields, [n, n_fields] of users, then items, then pairs."""
        parts = self.interaction(pooled.vectors, training=training)
        logits = (
            self.bias[0]
            + tf.reduce_sum(pooled.first, axis=1)
            + tf.reduce_sum(parts.pairs, axis=1)
            + parts.deep
        )
        return Ranked(logits, self.bias[0], pooled.first, parts)

    def loss_of(self, pooled: Pooled, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The weighted mean of the binary cross-entropy."""
        logits = self(pooled, training=True).logits
        each = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.math.divide_no_nan(tf.reduce_sum(each * weights), tf.reduce_sum(weights))


@tf.custom_gradient
def take_rows(x: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Gather rows of x, whose gradient is dense, as x is smaller than what is gathered."""
    size = tf.shape(x)[0]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.math.unsorted_segment_sum(upstream, places, size), None

    return tf.gather(x, places), gradient


def join_fields(parts: list[Pooled]) -> Pooled:
    """Put the fields of users, items and pairs beside each other."""
    return Pooled(
        tf.concat([one.first for one in parts], axis=1),
        tf.concat([one.vectors for one in parts], axis=1),
    )
