"""The equations of a factorization machine and of its two towers, as TensorFlow graphs.

x is a batch of feature values, a `tf.SparseTensor` [batch, n]; w [n] are first-order weights and
v [n, k] the vectors of the n features that x's columns stand for. All of one floating dtype.
`towers.fm_numpy` has the same equations for NumPy arrays, under the same names.

Source: S. Rendle, Factorization Machines, ICDM 2010, equation 1 and lemma 3.1.
"""

from __future__ import annotations

import tensorflow as tf


def first_order(x: tf.SparseTensor, w: tf.Tensor) -> tf.Tensor:
    """Sum w_i x_i over the features of each row of x; [batch]."""
    return tf.sparse.sparse_dense_matmul(x, w[:, tf.newaxis])[:, 0]


def pooled(x: tf.SparseTensor, v: tf.Tensor) -> tf.Tensor:
    """Sum v_i x_i over the features of each row of x; [batch, k]."""
    return tf.sparse.sparse_dense_matmul(x, v)


def second_order(x: tf.SparseTensor, v: tf.Tensor, *, pool: tf.Tensor) -> tf.Tensor:
    """Sum <v_i, v_j> x_i x_j over the pairs i < j of each row of x; [batch].

    1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ], where `pool` is `pooled(x, v)`.
    """
    query, feature = x.indices[:, 0], x.indices[:, 1]
    # Gathering from a variable itself would have every other reading of it make a copy of it.
    norms = tf.reduce_sum(tf.square(tf.gather(tf.convert_to_tensor(v), feature)), axis=1)
    squares = tf.math.unsorted_segment_sum(tf.square(x.values) * norms, query, tf.shape(pool)[0])
    return 0.5 * (tf.reduce_sum(tf.square(pool), axis=1) - squares)


def user_vector(x: tf.SparseTensor, v: tf.Tensor) -> tf.Tensor:
    """V_user = [1 ; sum_u v_u x_u]; [batch, 1 + k]."""
    pool = pooled(x, v)
    return tf.concat([tf.ones_like(pool[:, :1]), pool], axis=1)


def item_vector(x: tf.SparseTensor, w: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """V_item = [first-order + second-order within the item ; sum_t v_t x_t]; [batch, 1 + k]."""
    pool = pooled(x, v)
    bias = first_order(x, w) + second_order(x, v, pool=pool)
    return tf.concat([bias[:, tf.newaxis], pool], axis=1)
