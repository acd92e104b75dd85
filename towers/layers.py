"""The feature table and the two towers, as Keras layers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from towers.dense import Dense
from towers.interactions.interaction import FM, Interaction

FIRST_ORDER = "first_order"
"""The name of w, by which an optimizer can find it."""
VECTORS = "vectors"
"""That of v."""


class FeatureTable(keras.layers.Layer):
    """First-order weights w [n_rows] and vectors v [n_rows, blocks k] of all features, float32.

    With the parameters of the interaction, where it has some: all that a model learns.
    """

    def __init__(
        self,
        n_rows: int,
        *,
        embedding_dim: int,
        init_scale: float,
        seed: int,
        interaction: Interaction | None = None,
    ) -> None:
        """Draw v from a normal of standard deviation `init_scale`; w starts at zero.

        `interaction` is the member of the family, by default the factorization machine; where a
        feature has several vectors, all start as the first.
        """
        super().__init__(name="features")
        self.interaction: Interaction = interaction or FM()
        self._config = {
            "n_rows": n_rows,
            "embedding_dim": embedding_dim,
            "init_scale": init_scale,
            "seed": seed,
            "interaction": interaction,
        }
        self.w = self.add_weight(name=FIRST_ORDER, shape=(n_rows,), initializer="zeros")
        normal = keras.initializers.RandomNormal(stddev=init_scale, seed=seed)
        blocks = self.interaction.blocks
        self.v = self.add_weight(
            name=VECTORS,
            shape=(n_rows, blocks * embedding_dim),
            initializer=normal if blocks == 1 else _repeated(normal, blocks),
        )

    @property
    def interaction_weights(self) -> dict[str, tf.Variable]:
        """The parameters of the interaction by their names."""
        if not isinstance(self.interaction, tf.Module):
            return {}
        return {one.name: one for one in self.interaction.trainable_variables}

    def call(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gather `rows` [n] int64: w [n] and v [n, blocks k]. The gradients are sparse."""
        return tf.gather(self.w, rows), tf.gather(self.v, rows)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return self._config


class UserTower(keras.layers.Layer):
    """V_user [batch, 1 + width] of user bags."""

    def __init__(self, interaction: Interaction | None = None) -> None:
        """Take the member of the family, by default the factorization machine."""
        super().__init__()
        self._interaction: Interaction = interaction or FM()

    def call(
        self,
        x: tf.SparseTensor,
        v: tf.Tensor,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embed bags x [batch, n] over vectors v [n, blocks k]; see `Interaction.user_vector`."""
        return self._interaction.user_vector(x, v, dense=dense, rows=rows)


class ItemTower(keras.layers.Layer):
    """V_item [batch, 1 + width] of item bags."""

    def __init__(self, interaction: Interaction | None = None) -> None:
        """Take the member of the family, by default the factorization machine."""
        super().__init__()
        self._interaction: Interaction = interaction or FM()

    def call(
        self,
        x: tf.SparseTensor,
        w: tf.Tensor,
        v: tf.Tensor,
        dense: Dense | None = None,
        rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embed bags over weights w [n] and vectors v; see `Interaction.item_vector`."""
        return self._interaction.item_vector(x, w, v, dense=dense, rows=rows)


def _repeated(initializer: Any, blocks: int) -> Any:
    """Draw the first of `blocks` blocks of columns, and repeat it."""

    def draw(shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        first = initializer((shape[0], shape[1] // blocks), dtype=dtype)
        return tf.tile(first, [1, blocks])

    return draw
