"""Spectral initialization: item vectors from the leading singular vectors of the interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

OVERSAMPLING = 16
"""Directions beyond the k that are wanted, for accuracy."""
POWER_ITERATIONS = 2
N_READS = POWER_ITERATIONS + 1
"""How often the interactions are read."""
DAMPING = 0.1
"""Interactions that a user or an item counts for beyond its own, as a share of the mean number of
those who have any."""
SMALLEST = 1e-9
"""Of the largest eigenvalue; below it float32 knows nothing of a direction."""
STRETCH = 65_536
RIDGE = 1e-2
"""By default, of the mean square of a direction of the source, what a linear map pays for a squared
entry."""

PENALTY = 1.0
"""By default, what a feature's vector pays for a squared entry in a regression."""
ITERATIONS = 50
PRECISION = 1e-6
"""Of the squared residual at the start; the regression is then near enough for a start."""


def spectral_vectors(
    read: Callable[[], Iterable[sparse.csr_array]],
    k: int,
    *,
    user_counts: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    seed: int,
) -> NDArray[np.float32]:
    """Place items so that those of the same users lie together; [n_items, at most k] float32.

    V S^1/2 of the truncated decomposition U S V' of A = D_u^-1/2 R D_i^-1/2, where R
    [n_users, n_items] has a 1 for each interaction and D_u, D_i hold its row and column sums, each
    a little larger: the leading components of the normalized bipartite graph. Without that little,
    a dangling set, a few users and items that hardly touch the rest, is a component of its own, and
    one of the strongest; where many have few interactions, these leave no room for others. Root
    mean square 1; zeros for an item without interactions.

    V and S^2 are the eigenvectors and eigenvalues of A'A, a sum over the users, so that users may
    come a block at a time. Costs O(k nnz + k^2 n_items) time and O(k n_items) memory.

    Source: N. Halko, P. G. Martinsson, J. Tropp, Finding structure with randomness, SIAM Review
    2011, algorithms 4.4 and 5.5 (Nystrom). Larger sums: T. Qin, K. Rohe, Regularized spectral
    clustering under the degree-corrected stochastic blockmodel, NeurIPS 2013; why: Y. Zhang,
    K. Rohe, Understanding regularized spectral clustering via graph conductance, NeurIPS 2018.

    Args:
        read: gives R, some of its rows at a time [n, n_items]; called once a power iteration and
            once more. Some of its rows alone, chosen at random, give nearly the same.
        k: how many components.
        user_counts: the row sums of R, [n_users].
        item_counts: its column sums, [n_items].
        seed: of the random start.
    """
    n_items = len(item_counts)
    width = min(k + OVERSAMPLING, n_items)

    # an item without interactions is in no row, so that any number may stand in for its count
    item_sums = np.maximum(item_counts, 1) + _damping(item_counts)
    item_scale = item_sums[:, np.newaxis].astype(np.float32) ** -0.5
    more = _damping(user_counts)

    def apply(x: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled, y = x * item_scale, np.zeros_like(x)
        for rows in read():
            y += _through_users(rows, scaled, damping=more)
        return y * item_scale

    items = np.random.default_rng(seed).standard_normal((n_items, width), dtype=np.float32)
    for _ in range(POWER_ITERATIONS):
        items, _ = _orthonormal(apply(items))
    reached = apply(items)
    squares, turn = np.linalg.eigh(_inner(items, reached))
    kept = squares > SMALLEST * squares.max(initial=0.0)
    root = reached @ (turn[:, kept] / np.sqrt(squares[kept])).astype(np.float32)
    directions, singular = _orthonormal(root)
    vectors = np.zeros((n_items, min(k, n_items)), dtype=np.float32)
    n_found = min(vectors.shape[1], len(singular))
    vectors[:, :n_found] = directions[:, :n_found] * np.sqrt(singular[:n_found])
    length = float(np.sqrt(np.mean(np.square(vectors))))
    return np.asarray(vectors / (length or 1.0), dtype=np.float32)


def _orthonormal(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The left singular vectors of x [n, width], longest first, and their singular values.

    By way of x'x, which takes no copy of x; directions that float32 does not tell from zero are
    left out.
    """
    squares, turn = np.linalg.eigh(_inner(x, x))
    kept = np.flatnonzero(squares > SMALLEST * squares.max(initial=0.0))[::-1]
    lengths = np.sqrt(squares[kept]).astype(np.float32)
    return x @ (turn[:, kept] / lengths).astype(np.float32), lengths


def _inner(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """The product x'y [width, width] of tall matrices, summed in float64 a stretch at a time."""
    total = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), STRETCH):
        stretch = slice(start, start + STRETCH)
        total += x[stretch].T.astype(np.float64) @ y[stretch].astype(np.float64)
    return total


def fit_map(
    source: NDArray[np.float32], target: NDArray[np.float32], *, ridge: float = RIDGE
) -> NDArray[np.float32]:
    """Find the linear map [k, l] that takes `source` [n, k] nearest to `target` [n, l].

    Ridge regression without intercept: spectral vectors tell where items lie among each other, in
    coordinates of their own, and the items that a model has learned tell where that is in its.
    `ridge` is what a squared entry costs, of the mean square of a direction of the source.
    """
    x, y = source.astype(np.float64), target.astype(np.float64)
    gram = x.T @ x
    penalty = ridge * np.trace(gram) / len(gram)
    fitted = np.linalg.solve(gram + (penalty or 1.0) * np.eye(len(gram)), x.T @ y)
    return fitted.astype(np.float32)


def fit_features(
    bags: sparse.csr_array,
    moments: NDArray[np.float32],
    *,
    dense: NDArray[np.float32] | None = None,
    penalty: float = PENALTY,
) -> NDArray[np.float32]:
    """Find the vectors of features [m, k] whose sums over bags come nearest to wanted vectors.

    Ridge regression, (X'X + penalty I) V = X'T, by conjugate gradients for all k columns at once
    on equations scaled to a unit diagonal. Costs O(k nnz) an iteration and no [m, m] matrix.

    Source: Y. Saad, Iterative Methods for Sparse Linear Systems, 2003, algorithm 9.1.

    Args:
        bags: X, the features of users or items, [n, m].
        dense: further columns of X, [n, l]; their vectors come after those of the others.
        moments: X'T, where T [n, k] are the wanted vectors; a sum over blocks of n where T is not
            held in memory.
        penalty: what a feature pays for a squared entry. A feature of one item alone, with x = 1,
            goes 1 / (1 + penalty) of the way.
    """
    if dense is None:
        dense = np.zeros((bags.shape[0], 0), dtype=np.float32)
    squares = np.bincount(bags.indices, weights=np.square(bags.data), minlength=bags.shape[1])
    squares = np.concatenate([squares, np.einsum("nl,nl->l", dense, dense)])
    scale = (1.0 / np.sqrt(squares + penalty))[:, np.newaxis].astype(moments.dtype)
    transposed = bags.T.tocsr()

    def apply(x: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = x * scale
        sums = bags @ scaled[: bags.shape[1]] + dense @ scaled[bags.shape[1] :]
        back = np.concatenate([transposed @ sums, dense.T @ sums])
        applied: NDArray[np.float32] = (back + penalty * scaled) * scale
        return applied

    residual = moments * scale
    found, step = np.zeros_like(residual), residual.copy()
    error = first = np.sum(np.square(residual), axis=0)
    for _ in range(ITERATIONS):
        if (error <= PRECISION * first).all():
            break
        moved = apply(step)
        curvature = np.sum(step * moved, axis=0)
        length = np.divide(error, curvature, out=np.zeros_like(error), where=curvature > 0)
        found += length * step
        residual -= length * moved
        before, error = error, np.sum(np.square(residual), axis=0)
        step *= np.divide(error, before, out=np.zeros_like(error), where=before > 0)
        step += residual
    vectors: NDArray[np.float32] = found * scale
    return vectors


def _damping(counts: NDArray[np.int64]) -> float:
    """What is added to the sums of interactions [n]."""
    return DAMPING * float(counts.sum()) / max(int(np.count_nonzero(counts)), 1)


def _through_users(
    rows: sparse.csr_array, x: NDArray[np.float32], *, damping: float
) -> NDArray[np.float32]:
    """R' D^-1 R x, where R has a 1 for each interaction and D holds its damped row sums."""
    ones = np.ones(rows.nnz, dtype=np.float32)
    graph = sparse.csr_array((ones, rows.indices, rows.indptr), shape=rows.shape)
    sums = np.maximum(np.diff(rows.indptr), 1) + damping
    users = np.asarray(graph @ x) / sums[:, np.newaxis].astype(np.float32)
    return np.asarray(graph.T @ users)
