"""The equations of `towers.fm` for NumPy arrays, and the single terms that they sum.

x is a batch of feature values [batch, n], dense or a SciPy sparse array; w [n] are first-order
weights and v [n, k] the vectors of the n features that x's columns stand for.

Source: S. Rendle, Factorization Machines, ICDM 2010, equation 1 and lemma 3.1.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

F = TypeVar("F", np.float32, np.float64)
Floats = NDArray[F]
Batch = NDArray[F] | sparse.csr_array


def first_order(x: Batch[F], w: Floats[F]) -> Floats[F]:
    """Sum w_i x_i over the features of each row of x; [batch]."""
    sums: Floats[F] = x @ w
    return sums


def pooled(x: Batch[F], v: Floats[F]) -> Floats[F]:
    """Sum v_i x_i over the features of each row of x; [batch, k]."""
    sums: Floats[F] = x @ v
    return sums


def second_order(x: Batch[F], v: Floats[F], *, pool: Floats[F]) -> Floats[F]:
    """Sum <v_i, v_j> x_i x_j over the pairs i < j of each row of x; [batch].

    1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ], where `pool` is `pooled(x, v)`.
    """
    squares: Floats[F] = x**2 @ np.square(v).sum(axis=1)
    sums: Floats[F] = (np.square(pool).sum(axis=1) - squares) / 2
    return sums


def coupled_pairs(x: Batch[F], left: Floats[F], right: Floats[F]) -> Floats[F]:
    """Sum <left_i, right_j> x_i x_j over the pairs i < j of each row of x; [batch].

    Where the order of i and j makes no difference; with both v, it is `second_order`.
    """
    squares: Floats[F] = x**2 @ (left * right).sum(axis=1)
    sums: Floats[F] = ((x @ left * (x @ right)).sum(axis=1) - squares) / 2
    return sums


def user_vector(x: Batch[F], v: Floats[F]) -> Floats[F]:
    """V_user = [1 ; sum_u v_u x_u]; [batch, 1 + k]."""
    pool = pooled(x, v)
    return np.concatenate([np.ones_like(pool[:, :1]), pool], axis=1)


def item_vector(x: Batch[F], w: Floats[F], v: Floats[F]) -> Floats[F]:
    """V_item = [first-order + second-order within the item ; sum_t v_t x_t]; [batch, 1 + k]."""
    pool = pooled(x, v)
    bias = first_order(x, w) + second_order(x, v, pool=pool)
    return np.concatenate([bias[:, np.newaxis], pool], axis=1)


def first_order_terms(x: Floats[F], w: Floats[F]) -> Floats[F]:
    """w_i x_i of each feature of one row x [n]; [n]."""
    return w * x


def pair_terms(x: Floats[F], v: Floats[F], other_x: Floats[F], other_v: Floats[F]) -> Floats[F]:
    """<v_i, v_j> x_i x_j of each feature i of one row x [n] and j of another [m]; [n, m]."""
    terms: Floats[F] = (v * x[:, np.newaxis]) @ (other_v * other_x[:, np.newaxis]).T
    return terms
