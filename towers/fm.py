"""The equations of a factorization machine and of its two towers, as TensorFlow graphs.

x is a batch of feature values, a `tf.SparseTensor` [batch, n]; w [n] are first-order weights and
v [n, k] the vectors of the n features that x's columns stand for. All of one floating dtype. Where
every row has values of some features, `dense` holds these, and x none of them: what is computed is
the same as if x held all.
`towers.fm_numpy` has the same equations for NumPy arrays, under the same names.

Source: S. Rendle, Factorization Machines, ICDM 2010, equation 1 and lemma 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import tensorflow as tf

from towers.dense import Dense


class Sides(NamedTuple):
    """Both sides of a batch: V_user . V_item is `first` and the product of the coupled parts."""

    queries: tf.Tensor
    """The coupled parts of the users, [batch, k]."""
    items: tf.Tensor
    """Those of the items, [n_items, k]."""
    first: tf.Tensor
    """The first coordinates of the items, [n_items]."""
    query_lengths: tf.Tensor
    """The squared lengths of the coupled parts of the users, [batch]."""
    item_lengths: tf.Tensor
    """And of the items, [n_items]."""


def both_sides(
    users: tf.SparseTensor,
    items: tf.SparseTensor,
    w: tf.Tensor,
    v: tf.Tensor,
    *,
    dense: tuple[Dense, Dense],
) -> Sides:
    """`user_vector` and `item_vector` of bags over the same features, in fewer passes over v.

    One product has the bags of both, and the length of a vector is computed once: what an epoch of
    training does in tens of thousands of rows. `dense` are those of users, and of items.
    """
    n_users, n_items = users.dense_shape[0], items.dense_shape[0]
    after = tf.concat([items.indices[:, :1] + n_users, items.indices[:, 1:]], axis=1)
    both = tf.SparseTensor(
        tf.concat([users.indices, after], axis=0),
        tf.concat([users.values, items.values], axis=0),
        tf.stack([n_users + n_items, users.dense_shape[1]]),
    )
    pools = tf.split(tf.sparse.sparse_dense_matmul(both, v), tf.stack([n_users, n_items]))
    queries, coupled = (_with_dense(pool, one, v) for pool, one in zip(pools, dense, strict=True))
    norms = squared_lengths(v)
    squares = _weighted(_squared(items), norms)
    if _is_some(dense[1]):
        squares += tf.linalg.matvec(tf.square(dense[1].x), _own(dense[1], norms))
    lengths = [squared_lengths(pool) for pool in (queries, coupled)]
    first = first_order(items, w, dense=dense[1]) + 0.5 * (lengths[1] - squares)
    return Sides(queries, coupled, first, *lengths)


def first_order(x: tf.SparseTensor, w: tf.Tensor, *, dense: Dense | None = None) -> tf.Tensor:
    """Sum w_i x_i over the features of each row of x; [batch]."""
    sums = _weighted(x, w)
    return sums + tf.linalg.matvec(dense.x, _own(dense, w)) if _is_some(dense) else sums


def pooled(x: tf.SparseTensor, v: tf.Tensor, *, dense: Dense | None = None) -> tf.Tensor:
    """Sum v_i x_i over the features of each row of x; [batch, k]."""
    return _with_dense(tf.sparse.sparse_dense_matmul(x, v), dense, v)


def second_order(
    x: tf.SparseTensor, v: tf.Tensor, *, pool: tf.Tensor, dense: Dense | None = None
) -> tf.Tensor:
    """Sum <v_i, v_j> x_i x_j over the pairs i < j of each row of x; [batch].

    1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ], where `pool` is `pooled(x, v)`.
    """
    query, feature = x.indices[:, 0], x.indices[:, 1]
    # Gathering from a variable itself would have every other reading of it make a copy of it.
    norms = tf.reduce_sum(tf.square(tf.gather(tf.convert_to_tensor(v), feature)), axis=1)
    squares = tf.math.unsorted_segment_sum(tf.square(x.values) * norms, query, tf.shape(pool)[0])
    if _is_some(dense):
        norms = tf.reduce_sum(tf.square(_own(dense, v)), axis=1)
        squares += tf.linalg.matvec(tf.square(dense.x), norms)
    return 0.5 * (tf.reduce_sum(tf.square(pool), axis=1) - squares)


def user_vector(x: tf.SparseTensor, v: tf.Tensor, *, dense: Dense | None = None) -> tf.Tensor:
    """V_user = [1 ; sum_u v_u x_u]; [batch, 1 + k]."""
    pool = pooled(x, v, dense=dense)
    return tf.concat([tf.ones_like(pool[:, :1]), pool], axis=1)


def item_vector(
    x: tf.SparseTensor, w: tf.Tensor, v: tf.Tensor, *, dense: Dense | None = None
) -> tf.Tensor:
    """V_item = [first-order + second-order within the item ; sum_t v_t x_t]; [batch, 1 + k]."""
    pool = pooled(x, v, dense=dense)
    bias = first_order(x, w, dense=dense) + second_order(x, v, pool=pool, dense=dense)
    return tf.concat([bias[:, tf.newaxis], pool], axis=1)


def as_one(dense: Dense, v: tf.Tensor, w: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Take all dense features of each row as one feature with x = 1; [batch, k] and [batch].

    Its vector is the sum of theirs, and its weight the sum of their first-order terms and of the
    pairs among them; so a machine over this one feature gives what one over all of them does.
    """
    own = _own(dense, v)
    vector = tf.matmul(dense.x, own)
    if w is None:
        return vector, None
    squares = tf.linalg.matvec(tf.square(dense.x), tf.reduce_sum(tf.square(own), axis=1))
    pairs = 0.5 * (tf.reduce_sum(tf.square(vector), axis=1) - squares)
    return vector, tf.linalg.matvec(dense.x, _own(dense, w)) + pairs


def _with_dense(sums: tf.Tensor, dense: Dense | None, v: tf.Tensor) -> tf.Tensor:
    """Add the dense features to sums [batch, k] over the others."""
    return sums + tf.matmul(dense.x, _own(dense, v)) if _is_some(dense) else sums


@tf.custom_gradient
def squared_lengths(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Sum the squares of each row of x [n, k]; [n]. The gradient is one pass over x."""
    lengths = tf.reduce_sum(tf.square(x), axis=1)
    return lengths, lambda upstream: 2.0 * tf.expand_dims(upstream, 1) * x


def _weighted(x: tf.SparseTensor, numbers: tf.Tensor) -> tf.Tensor:
    """Sum numbers [n] over the features of each row of x; [batch]."""
    return tf.squeeze(tf.sparse.sparse_dense_matmul(x, tf.expand_dims(numbers, 1)), axis=1)


def _squared(x: tf.SparseTensor) -> tf.SparseTensor:
    """The same with squared values."""
    return tf.SparseTensor(x.indices, tf.square(x.values), x.dense_shape)


def _is_some(dense: Dense | None) -> TypeGuard[Dense]:
    """Whether there are dense features, as far as the graph knows when it is made."""
    return dense is not None and dense.x.shape[1] != 0


def _own(dense: Dense, table: tf.Tensor) -> tf.Tensor:
    """The rows of w or v that belong to the dense features."""
    return tf.convert_to_tensor(table)[dense.first : dense.first + tf.shape(dense.x)[1]]
