"""The equations of a factorization machine and of its two towers, as TensorFlow graphs.

x is a batch of feature values, a `tf.SparseTensor` [batch, n]; w [n] are first-order weights and
v [n, k] the vectors of the n features that x's columns stand for. All of one floating dtype. Where
every row has values of some features, `dense` holds these, and x none of them: what is computed is
the same as if x held all.
`towers.fm_numpy` has the same equations for NumPy arrays, under the same names.

Source: S. Rendle, Factorization Machines, ICDM 2010, equation 1 and lemma 3.1.
"""

from __future__ import annotations

import tensorflow as tf

from towers.dense import Dense


def first_order(x: tf.SparseTensor, w: tf.Tensor, *, dense: Dense | None = None) -> tf.Tensor:
    """Sum w_i x_i over the features of each row of x; [batch]."""
    sums = tf.sparse.sparse_dense_matmul(x, w[:, tf.newaxis])[:, 0]
    return sums if dense is None else sums + tf.linalg.matvec(dense.x, _own(dense, w))


def pooled(x: tf.SparseTensor, v: tf.Tensor, *, dense: Dense | None = None) -> tf.Tensor:
    """Sum v_i x_i over the features of each row of x; [batch, k]."""
    sums = tf.sparse.sparse_dense_matmul(x, v)
    return sums if dense is None else sums + tf.matmul(dense.x, _own(dense, v))


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
    if dense is not None:
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


def _own(dense: Dense, table: tf.Tensor) -> tf.Tensor:
    """The rows of w or v that belong to the dense features."""
    return tf.convert_to_tensor(table)[dense.first : dense.first + tf.shape(dense.x)[1]]
