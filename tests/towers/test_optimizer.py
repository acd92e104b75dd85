from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from towers.optimizer import LazyAdam

Array = NDArray[np.float64]

START = np.arange(12.0).reshape(4, 3) / 10


class NumpyAdam:
    """Adam of Kingma and Ba for one table, row by row, moving only the rows it is given."""

    def __init__(self, value: Array, *, rate: float, factor: float = 1.0) -> None:
        self.value, self.rate = value.copy(), rate * factor
        self.m, self.v = np.zeros_like(value), np.zeros_like(value)
        self.step = 0

    def apply(self, gradient: Array, rows: Sequence[int], *, rate: float | None = None) -> None:
        self.step += 1
        rate = self.rate if rate is None else rate
        bias = np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        for row, g in zip(rows, gradient, strict=True):
            self.m[row] = 0.9 * self.m[row] + 0.1 * g
            self.v[row] = 0.999 * self.v[row] + 0.001 * g**2
            self.value[row] -= rate * bias * self.m[row] / (np.sqrt(self.v[row]) + 1e-12)


def variable(value: Array = START, name: str = "table") -> tf.Variable:
    return tf.Variable(value, dtype=tf.float32, name=name)


def slices(gradient: Array, rows: Sequence[int]) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(gradient, tf.float32), tf.constant(rows, tf.int64))


def assert_moved_alike(moved: tf.Variable, reference: NumpyAdam) -> None:
    """Equal but for float32; most of it is 1 - beta_2 ^ t, which keeps 4 digits at first."""
    np.testing.assert_allclose(moved.numpy() - START, reference.value - START, rtol=2e-4, atol=1e-6)


def moments(optimizer: LazyAdam) -> list[Array]:
    """The two moments of the only variable."""
    return [v.numpy() for v in optimizer.variables if v.shape == START.shape]


def test_dense_gradients_are_applied_as_by_adam() -> None:
    optimizer, table, reference = LazyAdam(0.05), variable(), NumpyAdam(START, rate=0.05)
    rng = np.random.default_rng(0)
    for _ in range(6):
        gradient = rng.normal(size=START.shape)
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), table)])
        reference.apply(gradient, range(4))
    assert_moved_alike(table, reference)


def test_dense_gradients_move_as_by_keras_adam() -> None:
    ours, theirs = variable(), variable()
    lazy, dense = LazyAdam(0.05, epsilon=1e-7), keras.optimizers.Adam(0.05, epsilon=1e-7)
    rng = np.random.default_rng(5)
    for _ in range(4):
        gradient = tf.constant(rng.normal(size=START.shape), tf.float32)
        lazy.apply_gradients([(gradient, ours)])
        dense.apply_gradients([(gradient, theirs)])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_a_penalty_pulls_the_rows_that_are_moved_and_no_other() -> None:
    """As a term l2 |row|^2 of the loss for each row that has a gradient, whatever its size."""
    optimizer, table = LazyAdam(0.05, l2={"table": 0.3}), variable()
    reference, rng = NumpyAdam(START, rate=0.05), np.random.default_rng(6)
    for rows in ([2, 0], [0]):
        gradient = rng.normal(size=(len(rows), 3)) / 10
        optimizer.apply_gradients([(slices(gradient, rows), table)])
        reference.apply(gradient + 0.6 * reference.value[rows], rows)
    assert_moved_alike(table, reference)
    assert LazyAdam.from_config(optimizer.get_config()).l2 == {"table": 0.3}


def test_sparse_gradients_move_their_rows_and_no_other() -> None:
    optimizer, table, reference = LazyAdam(0.05), variable(), NumpyAdam(START, rate=0.05)
    rng = np.random.default_rng(1)
    for rows in ([2, 0], [0], [0, 2], [2]):
        gradient = rng.normal(size=(len(rows), 3))
        optimizer.apply_gradients([(slices(gradient, rows), table)])
        reference.apply(gradient, rows)
    assert_moved_alike(table, reference)
    np.testing.assert_array_equal(table.numpy()[[1, 3]], START[[1, 3]].astype(np.float32))


def test_untouched_rows_are_not_even_read() -> None:
    start = START.copy()
    start[3] = np.inf  # anything computed from it, such as a decay of 0, would be NaN
    optimizer, table = LazyAdam(0.05), variable(start)
    optimizer.apply_gradients([(slices(np.ones((1, 3)), [1]), table)])
    assert np.all(np.isinf(table.numpy()[3]))


def test_moments_of_untouched_rows_neither_decay_nor_grow() -> None:
    optimizer, table = LazyAdam(0.05), variable()
    optimizer.apply_gradients([(slices(np.ones((1, 3)), [1]), table)])
    before = moments(optimizer)
    for _ in range(3):
        optimizer.apply_gradients([(slices(np.ones((1, 3)), [3]), table)])
    for old, new in zip(before, moments(optimizer), strict=True):
        np.testing.assert_array_equal(old[[0, 1, 2]], new[[0, 1, 2]])
        assert np.all(old[1] > 0)
        assert not np.any(old[3])
        assert np.all(new[3] > 0)


def test_a_row_named_twice_gets_the_sum_of_its_gradients() -> None:
    once, twice = variable(), variable()
    LazyAdam(0.05).apply_gradients([(slices(np.array([[3.0, 4.0, -1.0]]), [2]), once)])
    parts = np.array([[1.0, 5.0, -3.0], [2.0, -1.0, 2.0]])
    LazyAdam(0.05).apply_gradients([(slices(parts, [2, 2]), twice)])
    np.testing.assert_allclose(once.numpy(), twice.numpy(), rtol=1e-6)


def test_rates_slow_the_variables_that_they_name() -> None:
    optimizer = LazyAdam(0.05, rates={"first_order": 0.1})
    slow, plain = variable(name="features/first_order"), variable(name="vectors")
    slow_reference = NumpyAdam(START, rate=0.05, factor=0.1)
    reference = NumpyAdam(START, rate=0.05)
    for gradient in (np.ones((4, 3)), -0.5 * START):
        dense = tf.constant(gradient, tf.float32)
        optimizer.apply_gradients([(dense, slow), (dense, plain)])
        slow_reference.apply(gradient, range(4))
        reference.apply(gradient, range(4))
    assert_moved_alike(slow, slow_reference)
    assert_moved_alike(plain, reference)


def test_a_schedule_sets_the_rate_of_each_step() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 4)
    optimizer, table, reference = LazyAdam(schedule), variable(), NumpyAdam(START, rate=0.0)
    for step in range(4):
        gradient = np.full((2, 3), 1.0 + step)
        optimizer.apply_gradients([(slices(gradient, [1, 2]), table)])
        reference.apply(gradient, [1, 2], rate=0.05 * (1 + np.cos(np.pi * step / 4)))
    assert_moved_alike(table, reference)


class Lookup(keras.Model):
    """Learns a table by the squared distance of looked-up rows to a target."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.add_weight(
            name="table", shape=START.shape, initializer=keras.initializers.Constant(START)
        )

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.table, rows)


@pytest.mark.parametrize("eagerly", [False, True])
def test_fit_applies_it_to_the_rows_of_the_batches(eagerly: bool) -> None:
    model, reference = Lookup(), NumpyAdam(START, rate=0.05)
    model.compile(optimizer=LazyAdam(0.05), loss="mse", run_eagerly=eagerly)
    rows, target = np.array([0, 2, 2, 0, 3, 2]), np.ones((6, 3), np.float32)
    model.fit(rows, target, batch_size=2, shuffle=False, verbose=0)
    for batch in rows.reshape(3, 2):
        touched, counts = np.unique(batch, return_counts=True)
        gradient = 2 * (reference.value[touched] - 1) * counts[:, np.newaxis] / (2 * 3)
        reference.apply(gradient, list(touched))
    assert_moved_alike(model.table, reference)
    np.testing.assert_array_equal(model.table.numpy()[1], START[1].astype(np.float32))


@pytest.mark.parametrize("rate", [0.3, keras.optimizers.schedules.CosineDecay(0.1, 4)])
def test_it_is_rebuilt_from_its_configuration(rate: Any) -> None:
    optimizer = LazyAdam(
        rate, rates={"table": 0.5}, beta_1=0.8, beta_2=0.95, epsilon=1e-5, name="mine"
    )
    again = LazyAdam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    ours, theirs = variable(), variable()
    for _ in range(3):
        optimizer.apply_gradients([(tf.constant(START, tf.float32), ours)])
        again.apply_gradients([(tf.constant(START, tf.float32), theirs)])
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("built_first", [True, False])
def test_a_restored_checkpoint_continues_as_if_never_stopped(
    tmp_path: Path, built_first: bool
) -> None:
    rng = np.random.default_rng(2)
    steps = [(rng.normal(size=(2, 3)), rng.permutation(4)[:2].tolist()) for _ in range(6)]
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 6)
    optimizer, table = LazyAdam(schedule), variable()
    for gradient, rows in steps[:3]:
        optimizer.apply_gradients([(slices(gradient, rows), table)])
    path = tf.train.Checkpoint(optimizer=optimizer, table=table).write(str(tmp_path / "state"))
    for gradient, rows in steps[3:]:
        optimizer.apply_gradients([(slices(gradient, rows), table)])

    resumed, copy = LazyAdam(schedule), variable(np.zeros_like(START))
    if built_first:
        resumed.build([copy])
    status = tf.train.Checkpoint(optimizer=resumed, table=copy).read(path)
    for gradient, rows in steps[3:]:
        resumed.apply_gradients([(slices(gradient, rows), copy)])
    status.assert_consumed()
    np.testing.assert_array_equal(copy.numpy(), table.numpy())


def test_its_state_can_be_set_as_that_of_any_keras_optimizer() -> None:
    optimizer, table = LazyAdam(0.05), variable()
    optimizer.apply_gradients([(tf.constant(START, tf.float32), table)])
    other = LazyAdam(0.05)
    other.build([variable()])
    other.set_weights([v.numpy() for v in optimizer.variables])
    for ours, theirs in zip(moments(optimizer), moments(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
