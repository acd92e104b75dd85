"""The equations in float64 against the definition of a factorization machine, O(n^2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from towers import fm

Array = NDArray[np.float64]

REALS = st.floats(-3.0, 3.0, allow_subnormal=False)


@dataclass(frozen=True)
class Machine:
    """A factorization machine, and bags over disjoint features of users and of items."""

    w0: float
    w: Array
    v: Array
    users: Array
    items: Array

    @property
    def parts(self) -> tuple[tf.SparseTensor, tf.SparseTensor, tf.Tensor, tf.Tensor]:
        return sparse(self.users), sparse(self.items), tf.constant(self.w), tf.constant(self.v)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    n_user, n_item, dim = (draw(st.integers(1, 5)) for _ in range(3))
    n_users, n_items = (draw(st.integers(1, 3)) for _ in range(2))
    n = n_user + n_item
    bags = REALS | st.just(0.0)  # multi-hot: many features are not in a bag
    users = np.zeros((n_users, n))
    users[:, :n_user] = draw(hnp.arrays(np.float64, (n_users, n_user), elements=bags))
    items = np.zeros((n_items, n))
    items[:, n_user:] = draw(hnp.arrays(np.float64, (n_items, n_item), elements=bags))
    w = draw(hnp.arrays(np.float64, n, elements=REALS))
    v = draw(hnp.arrays(np.float64, (n, dim), elements=REALS))
    return Machine(draw(REALS), w, v, users, items)


def sparse(x: Array) -> tf.SparseTensor:
    return tf.sparse.from_dense(tf.constant(x))


def naive_pairs(x: Array, v: Array) -> float:
    """Sum <v_i, v_j> x_i x_j over all i < j, pair by pair."""
    pairs = [(i, j) for i in range(len(x)) for j in range(i + 1, len(x))]
    return sum(float(v[i] @ v[j]) * float(x[i] * x[j]) for i, j in pairs)


def naive_fm(x: Array, w0: float, w: Array, v: Array) -> float:
    """Equation 1 of Rendle 2010, word for word."""
    return w0 + sum(float(w[i] * x[i]) for i in range(len(x))) + naive_pairs(x, v)


def assert_exact(received: Any, expected: Any) -> None:
    np.testing.assert_allclose(received, expected, rtol=1e-9, atol=1e-9)


@given(machines())
@settings(max_examples=60)
def test_match_score_and_dropped_user_terms_are_the_factorization_machine(m: Machine) -> None:
    users, items, w, v = m.parts
    match = fm.user_vector(users, v).numpy() @ fm.item_vector(items, w, v).numpy().T
    dropped = fm.user_terms(users, tf.constant(m.w0, tf.float64), w, v).numpy()
    expected = [[naive_fm(user + item, m.w0, m.w, m.v) for item in m.items] for user in m.users]
    assert_exact(match + dropped[:, np.newaxis], expected)


@given(machines())
@settings(max_examples=30)
def test_each_term_is_its_naive_sum(m: Machine) -> None:
    _, items, w, v = m.parts
    assert_exact(fm.linear(items, w).numpy(), m.items @ m.w)
    pool = fm.pooled(items, v)
    assert_exact(pool.numpy(), m.items @ m.v)
    pairs = fm.second_order(items, v, pool=pool).numpy()
    assert_exact(pairs, [naive_pairs(x, m.v) for x in m.items])


def test_vectors_have_the_coordinates_of_the_rewriting() -> None:
    x, w, v = np.array([[2.0, 0.5]]), np.array([10.0, 100.0]), np.array([[1.0, 2.0], [3.0, -4.0]])
    pool = [2 * 1 + 0.5 * 3, 2 * 2 - 0.5 * 4]
    own = 2 * 10 + 0.5 * 100 + (1 * 3 - 2 * 4) * 2 * 0.5
    user = fm.user_vector(sparse(x), tf.constant(v))
    item = fm.item_vector(sparse(x), tf.constant(w), tf.constant(v))
    assert_exact(user.numpy(), [[1.0, *pool]])
    assert_exact(item.numpy(), [[own, *pool]])


def test_an_empty_bag_has_no_terms() -> None:
    x = sparse(np.zeros((2, 3)))
    w, v = tf.ones([3], tf.float64), tf.ones([3, 2], tf.float64)
    assert fm.user_vector(x, v).numpy().tolist() == [[1.0, 0.0, 0.0]] * 2
    assert fm.item_vector(x, w, v).numpy().tolist() == [[0.0, 0.0, 0.0]] * 2
    w0 = tf.constant(5.0, tf.float64)
    assert fm.user_terms(x, w0, w, v).numpy().tolist() == [5.0, 5.0]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_floating_type_is_kept(dtype: tf.DType) -> None:
    x = tf.sparse.from_dense(tf.ones([1, 2], dtype))
    w, v = tf.ones([2], dtype), tf.ones([2, 3], dtype)
    assert fm.user_vector(x, v).dtype == dtype
    assert fm.item_vector(x, w, v).dtype == dtype
