"""The equations in float64 against the definition of a factorization machine, O(n^2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.examples import examples
from towers import fm, fm_numpy
from towers.dense import Dense

Array = NDArray[np.float64]

REALS = st.floats(-3.0, 3.0, allow_subnormal=False)


@dataclass(frozen=True)
class Machine:
    """A factorization machine, and values of disjoint features of users and of items."""

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
    values = REALS | st.just(0.0)  # multi-hot: many features are not active
    users = np.zeros((n_users, n))
    users[:, :n_user] = draw(hnp.arrays(np.float64, (n_users, n_user), elements=values))
    items = np.zeros((n_items, n))
    items[:, n_user:] = draw(hnp.arrays(np.float64, (n_items, n_item), elements=values))
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
@settings(max_examples=examples(60))
def test_match_score_and_dropped_user_terms_are_the_factorization_machine(m: Machine) -> None:
    match = fm_numpy.user_vector(m.users, m.v) @ fm_numpy.item_vector(m.items, m.w, m.v).T
    dropped = [[naive_fm(user, m.w0, m.w, m.v)] for user in m.users]
    expected = [[naive_fm(user + item, m.w0, m.w, m.v) for item in m.items] for user in m.users]
    assert_exact(match + dropped, expected)


@given(machines())
@settings(max_examples=examples(60))
def test_the_graph_computes_what_the_arrays_do(m: Machine) -> None:
    users, items, w, v = m.parts
    for x in (m.users, scipy.sparse.csr_array(m.users)):
        assert_exact(fm.user_vector(users, v).numpy(), fm_numpy.user_vector(x, m.v))
    for x in (m.items, scipy.sparse.csr_array(m.items)):
        assert_exact(fm.first_order(items, w).numpy(), fm_numpy.first_order(x, m.w))
        pool, graph_pool = fm_numpy.pooled(x, m.v), fm.pooled(items, v)
        assert_exact(graph_pool.numpy(), pool)
        pairs = fm.second_order(items, v, pool=graph_pool).numpy()
        assert_exact(pairs, fm_numpy.second_order(x, m.v, pool=pool))
        assert_exact(fm.item_vector(items, w, v).numpy(), fm_numpy.item_vector(x, m.w, m.v))


@given(machines(), st.data())
@settings(max_examples=examples(60))
def test_dense_features_are_numeric_features_of_the_machine(
    m: Machine, data: st.DataObject
) -> None:
    """By the naive sums over all features; and as one feature in the place of all of them."""
    x, w, v = m.items + m.users[:1], tf.constant(m.w), tf.constant(m.v)
    first = data.draw(st.integers(0, x.shape[1]))
    last = data.draw(st.integers(first, x.shape[1]))
    rest = x.copy()
    rest[:, first:last] = 0.0
    dense = Dense(tf.constant(x[:, first:last]), first)
    found = fm.item_vector(sparse(rest), w, v, dense=dense).numpy()
    assert_exact(found[:, 0], [naive_fm(row, 0.0, m.w, m.v) for row in x])
    assert_exact(found[:, 1:], [sum(row[i] * m.v[i] for i in range(len(row))) for row in x])
    users = fm.user_vector(sparse(rest), v, dense=dense).numpy()
    assert_exact(users, np.column_stack([np.ones(len(x)), found[:, 1:]]))
    vectors, weights = fm.as_one(dense, v, w)
    assert weights is not None
    for row, vector, weight, expected in zip(rest, vectors, weights, found, strict=True):
        one, own_w = np.append(row, 1.0), np.append(m.w, weight)
        own_v = np.concatenate([m.v, [vector]])
        assert_exact(fm_numpy.item_vector(one[np.newaxis], own_w, own_v)[0], expected)


@given(machines())
@settings(max_examples=examples(30))
def test_each_sum_is_that_of_its_naive_terms(m: Machine) -> None:
    assert_exact(fm_numpy.first_order(m.items, m.w), m.items @ m.w)
    pool = fm_numpy.pooled(m.items, m.v)
    assert_exact(pool, m.items @ m.v)
    pairs = fm_numpy.second_order(m.items, m.v, pool=pool)
    assert_exact(pairs, [naive_pairs(x, m.v) for x in m.items])


@given(machines())
@settings(max_examples=examples(30))
def test_terms_sum_to_the_match_score(m: Machine) -> None:
    user, item = m.users[0], m.items[0]
    first = fm_numpy.first_order_terms(item, m.w)
    within = fm_numpy.pair_terms(item, m.v, item, m.v)[np.triu_indices(len(item), k=1)]
    between = fm_numpy.pair_terms(user, m.v, item, m.v)
    match = fm_numpy.user_vector(m.users, m.v)[0] @ fm_numpy.item_vector(m.items, m.w, m.v)[0]
    assert_exact(first.sum() + within.sum() + between.sum(), match)


def test_vectors_have_the_coordinates_of_the_rewriting() -> None:
    x, w, v = np.array([[2.0, 0.5]]), np.array([10.0, 100.0]), np.array([[1.0, 2.0], [3.0, -4.0]])
    pool = [2 * 1 + 0.5 * 3, 2 * 2 - 0.5 * 4]
    bias = 2 * 10 + 0.5 * 100 + (1 * 3 - 2 * 4) * 2 * 0.5
    assert_exact(fm_numpy.user_vector(x, v), [[1.0, *pool]])
    assert_exact(fm_numpy.item_vector(x, w, v), [[bias, *pool]])


def test_without_features_there_are_no_terms() -> None:
    x, w, v = np.zeros((2, 3)), np.ones(3), np.ones((3, 2))
    assert fm_numpy.user_vector(x, v).tolist() == [[1.0, 0.0, 0.0]] * 2
    assert fm_numpy.item_vector(x, w, v).tolist() == [[0.0, 0.0, 0.0]] * 2
    graph = fm.item_vector(sparse(x), tf.constant(w), tf.constant(v))
    assert graph.numpy().tolist() == [[0.0, 0.0, 0.0]] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_floating_type_is_kept(dtype: Any) -> None:
    x, w, v = np.ones((1, 2), dtype), np.ones(2, dtype), np.ones((2, 3), dtype)
    assert fm_numpy.user_vector(x, v).dtype == dtype
    assert fm_numpy.item_vector(x, w, v).dtype == dtype
    assert fm.user_vector(sparse(x), tf.constant(v)).dtype == dtype
    assert fm.item_vector(sparse(x), tf.constant(w), tf.constant(v)).dtype == dtype
