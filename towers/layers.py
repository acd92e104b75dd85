"""The feature table and the two towers, as Keras layers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from towers import fm
from towers.dense import Dense

FIRST_ORDER = "first_order"
"""The name of w, by which an optimizer can find it."""


class FeatureTable(keras.layers.Layer):
    """First-order weights w [n_rows] and vectors v [n_rows, k] of all features, float32."""

    def __init__(self, n_rows: int, *, embedding_dim: int, init_scale: float, seed: int) -> None:
        """Draw v from a normal of standard deviation `init_scale`; w starts at zero."""
        super().__init__(name="features")
        self._config = {
            "n_rows": n_rows,
            "embedding_dim": embedding_dim,
            "init_scale": init_scale,
            "seed": seed,
        }
        self.w = self.add_weight(name=FIRST_ORDER, shape=(n_rows,), initializer="zeros")
        self.v = self.add_weight(
            name="vectors",
            shape=(n_rows, embedding_dim),
            initializer=keras.initializers.RandomNormal(stddev=init_scale, seed=seed),
        )

    def call(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gather `rows` [n] int64: w [n] and v [n, k]. The gradients are sparse."""
        return tf.gather(self.w, rows), tf.gather(self.v, rows)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return self._config


class UserTower(keras.layers.Layer):
    """V_user [batch, 1 + k] of user bags."""

    def call(self, x: tf.SparseTensor, v: tf.Tensor, dense: Dense | None = None) -> tf.Tensor:
        """Apply `fm.user_vector` to bags x [batch, n] over vectors v [n, k]."""
        return fm.user_vector(x, v, dense=dense)


class ItemTower(keras.layers.Layer):
    """V_item [batch, 1 + k] of item bags."""

    def call(
        self, x: tf.SparseTensor, w: tf.Tensor, v: tf.Tensor, dense: Dense | None = None
    ) -> tf.Tensor:
        """Apply `fm.item_vector` to bags x [batch, n] over weights w [n] and vectors v [n, k]."""
        return fm.item_vector(x, w, v, dense=dense)
