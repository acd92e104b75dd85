"""How the vectors of fields meet: the pairs of each kind of ranker, as Keras layers.

Every layer takes the fields' vectors [n, n_fields, width] and answers `Parts`: what each pair of
fields adds to the score, in the order of `pairs_of`, and what is no sum over pairs. So a score is
explained by the numbers that it was summed from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from towers.ranking.settings import Kind, RankerSettings


class Parts(NamedTuple):
    """The second part of a score."""

    pairs: tf.Tensor
    """What each pair of fields adds, [n, n_pairs]."""
    attention: tf.Tensor
    """The share of attention that each pair has, [n, n_pairs]; sums to 1. [n, 0] without."""
    deep: tf.Tensor
    """What a network adds, [n]; 0 without."""


def pairs_of(n_fields: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first and the second field of each pair, [n_pairs] each."""
    first, second = np.triu_indices(n_fields, 1)
    return first, second


class Interaction(keras.layers.Layer):
    """What all kinds have in common."""

    def __init__(self, n_fields: int, settings: RankerSettings, *, seed: int) -> None:
        """Make the parameters of the pairs of `n_fields` fields."""
        super().__init__(name=settings.kind)
        self.n_fields, self.settings, self.seed = n_fields, settings, seed
        self._first, self._second = pairs_of(n_fields)
        self._dropout = keras.layers.Dropout(settings.dropped, seed=seed)
        self._make()

    @classmethod
    def width(cls, n_fields: int, embedding_dim: int) -> int:
        """How long the vector of a feature is."""
        del n_fields
        return embedding_dim

    def _make(self) -> None:
        """Make parameters; without, there are none."""

    def _products(self, vectors: tf.Tensor) -> tf.Tensor:
        """The inner product of each pair of fields, [n, n_pairs]."""
        return self._of_square(tf.matmul(vectors, vectors, transpose_b=True))

    def _of_square(self, square: tf.Tensor) -> tf.Tensor:
        """The numbers of pairs [n, n_pairs] from those of all [n, n_fields, n_fields]."""
        flat = tf.reshape(square, [-1, self.n_fields**2])
        return tf.gather(flat, self._first * self.n_fields + self._second, axis=1)


def _of_pairs(pairs: tf.Tensor) -> Parts:
    """Parts with nothing beside the pairs."""
    return Parts(pairs, pairs[:, :0], tf.zeros_like(pairs[:, 0]))


class Fm(Interaction):
    """<v_f, v_g>. Source: S. Rendle, Factorization Machines, ICDM 2010, equation 1, by fields."""

    def call(self, vectors: tf.Tensor, training: bool = False) -> Parts:
        """Score the pairs."""
        return _of_pairs(self._products(self._dropout(vectors, training=training)))


class Fwfm(Interaction):
    """r_fg <v_f, v_g>. Source: J. Pan et al., Field-weighted Factorization Machines, WWW 2018."""

    def _make(self) -> None:
        self.weights_of_pairs = self.add_weight(
            name="pairs", shape=(len(self._first),), initializer="ones"
        )

    def call(self, vectors: tf.Tensor, training: bool = False) -> Parts:
        """Score the pairs."""
        products = self._products(self._dropout(vectors, training=training))
        return _of_pairs(self.weights_of_pairs * products)


class Ffm(Interaction):
    """<v_f^(g), v_g^(f)>. Source: Y. Juan et al., Field-aware FM, RecSys 2016, equation 4."""

    @classmethod
    def width(cls, n_fields: int, embedding_dim: int) -> int:
        """A feature has a vector for each field."""
        return n_fields * embedding_dim

    def call(self, vectors: tf.Tensor, training: bool = False) -> Parts:
        """Score the pairs."""
        vectors = self._dropout(vectors, training=training)
        n = self.n_fields
        by_field = tf.reshape(vectors, [-1, n, n, self.settings.embedding_dim])
        products = tf.reduce_sum(by_field * tf.transpose(by_field, [0, 2, 1, 3]), axis=3)
        return _of_pairs(self._of_square(products))


class Afm(Interaction):
    """a_fg p . (v_f * v_g), where a is a softmax over the pairs.

    Source: J. Xiao et al., Attentional Factorization Machines, IJCAI 2017, equations 5 to 7.
    """

    def _make(self) -> None:
        dim = self.settings.attention_dim
        start = keras.initializers.GlorotUniform(seed=self.seed)
        self._network = keras.layers.Dense(dim, activation="relu", kernel_initializer=start)
        self._logit = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
        # where attention is the same for all pairs, as it is at first, the score is that of `Fm`
        self.project = self.add_weight(
            name="project",
            shape=(self.settings.embedding_dim,),
            initializer=keras.initializers.Constant(float(len(self._first))),
        )

    def call(self, vectors: tf.Tensor, training: bool = False) -> Parts:
        """Score the pairs."""
        # products with 0 and 1 in place of gathers, whose gradient is many times as slow
        first, second = (tf.one_hot(one, self.n_fields) for one in (self._first, self._second))
        products = tf.matmul(first, vectors) * tf.matmul(second, vectors)
        products = self._dropout(products, training=training)
        attention = tf.nn.softmax(self._logit(self._network(products))[:, :, 0], axis=1)
        pairs = attention * tf.linalg.matvec(products, self.project)
        return Parts(pairs, attention, tf.zeros_like(pairs[:, 0]))


class DeepFm(Interaction):
    """The pairs of `Fm`, and a network over the same vectors, one after another.

    Its layers are normalized over the batch before they are cut off at 0. Sources: H. Guo et al.,
    DeepFM, IJCAI 2017, equations 1 to 4; S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015.
    """

    def _make(self) -> None:
        layers = []
        for number, size in enumerate(self.settings.hidden):
            start = keras.initializers.HeUniform(seed=self.seed + number)
            layers.append(keras.layers.Dense(size, use_bias=False, kernel_initializer=start))
            layers.append(keras.layers.BatchNormalization(momentum=0.9))
            layers.append(keras.layers.Activation("relu"))
            layers.append(keras.layers.Dropout(self.settings.dropped, seed=self.seed + number))
        start = keras.initializers.GlorotUniform(seed=self.seed)
        self._layers = [*layers, keras.layers.Dense(1, kernel_initializer=start)]

    def call(self, vectors: tf.Tensor, training: bool = False) -> Parts:
        """Score the pairs, and run the network."""
        hidden = tf.reshape(vectors, [-1, self.n_fields * self.settings.embedding_dim])
        for layer in self._layers:
            hidden = layer(hidden, training=training)
        pairs = self._products(vectors)
        return Parts(pairs, pairs[:, :0], hidden[:, 0])


INTERACTIONS: dict[Kind, type[Interaction]] = {
    "fm": Fm,
    "fwfm": Fwfm,
    "ffm": Ffm,
    "afm": Afm,
    "deepfm": DeepFm,
}
"""The layer of each kind of ranker."""
