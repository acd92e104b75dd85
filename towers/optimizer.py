"""LazyAdam: Adam whose step costs as much as the rows of the batch, never as the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

Gradients = Sequence[tuple[tf.Tensor | tf.IndexedSlices, tf.Variable]]
"""Gradients with their variables."""


class LazyAdam(keras.optimizers.Optimizer):
    """Adam that moves only the rows a sparse gradient names.

    Moments of untouched rows do not decay, unlike in Keras' Adam, which updates every row at every
    step. Source: D. Kingma, J. Ba, Adam, ICLR 2015, algorithm 1, applied to the touched rows.
    """

    has_repeats = True
    """Whether a sparse gradient may name a row several times; set to False, where none does, Keras
    does not sum what is there once, which takes longer than any other part of a step."""

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        *,
        rates: Mapping[str, float] | None = None,
        l2: Mapping[str, float] | None = None,
        add_up: Callable[[Gradients], Gradients] | None = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-12,
        name: str = "LazyAdam",
        **kwargs: Any,
    ) -> None:
        """Keep the hyperparameters.

        Args:
            learning_rate: a number, or a schedule over steps.
            rates: factors of the learning rate, for variables whose name ends with the key.
            l2: likewise, weights in the loss of the squared length of each row that is moved.
            add_up: sums the gradients of several workers; default: as `tf.distribute` does.
            beta_1: decay of the first moment.
            beta_2: decay of the second moment.
            epsilon: keeps the division finite; far below the gradient of a mean over a large batch.
            name: of the optimizer.
            **kwargs: as for every Keras optimizer.
        """
        # Keras' default, a weight decay of 0, would write every row at every step
        super().__init__(name=name, **({"weight_decay": None, "jit_compile": False} | kwargs))
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.rates, self.l2 = dict(rates or {}), dict(l2 or {})
        self._add_up = add_up

    def build(self, var_list: list[tf.Variable]) -> None:
        """Make the two moments of each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._moments = [
            (self.add_variable_from_reference(v, "m"), self.add_variable_from_reference(v, "v"))
            for v in var_list
        ]

    def aggregate_gradients(self, grads_and_vars: Gradients) -> Gradients:
        """Sum the gradients of all workers; called by Keras before it sums repeated rows."""
        if self._add_up is not None:
            return self._add_up(grads_and_vars)
        found: Gradients = super().aggregate_gradients(grads_and_vars)
        return found

    def _deduplicate_sparse_grad(
        self, grads: Sequence[tf.Tensor | tf.IndexedSlices]
    ) -> Sequence[tf.Tensor | tf.IndexedSlices]:
        """Sum repeated rows, if there may be any; called by Keras."""
        if not self.has_repeats:
            return grads
        summed: Sequence[tf.Tensor | tf.IndexedSlices] = super()._deduplicate_sparse_grad(grads)
        return summed

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Move the rows named by a sparse gradient, or all of a dense one's."""
        first, second = self._moments[self._index_dict[self._var_key(variable)]]
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(variable)[0]))
        rows, g = gradient.indices, gradient.values
        step = tf.cast(self.iterations + 1, variable.dtype)
        bias = tf.sqrt(1.0 - tf.pow(self.beta_2, step)) / (1.0 - tf.pow(self.beta_1, step))
        rate = (
            tf.cast(self.learning_rate, variable.dtype) * bias * _named(self.rates, variable, 1.0)
        )
        penalty = _named(self.l2, variable, 0.0)
        if penalty:
            g += 2.0 * penalty * tf.gather(variable, rows)
        m = self.beta_1 * tf.gather(first, rows) + (1.0 - self.beta_1) * g
        v = self.beta_2 * tf.gather(second, rows) + (1.0 - self.beta_2) * tf.square(g)
        first.scatter_update(tf.IndexedSlices(m, rows))
        second.scatter_update(tf.IndexedSlices(v, rows))
        moved = rate * m / (tf.sqrt(v) + self.epsilon)
        # Keras has summed repeated rows, so setting them is the same as subtracting, and faster
        variable.scatter_update(tf.IndexedSlices(tf.gather(variable, rows) - moved, rows))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "rates": self.rates,
            "l2": self.l2,
        }


def _named(values: Mapping[str, float], variable: tf.Variable, default: float) -> float:
    """The value for a variable by the end of its name."""
    name = variable.name.split(":")[0]
    return next((value for ending, value in values.items() if name.endswith(ending)), default)
