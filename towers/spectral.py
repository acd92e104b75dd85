"""Spectral initialization: item vectors from the leading singular vectors of the interactions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

OVERSAMPLING = 16
"""Directions beyond the k that are wanted, for accuracy."""
POWER_ITERATIONS = 2
RIDGE = 1e-2
"""Of the mean square of a direction of the source, what a linear map pays for a squared entry."""


def spectral_vectors(interactions: sparse.csr_array, k: int, *, seed: int) -> NDArray[np.float32]:
    """Place items so that those of the same users lie together; [n_items, at most k] float32.

    V S^1/2 of the truncated decomposition U S V' of D_u^-1/2 R D_i^-1/2, where R [n_users, n_items]
    has a 1 for each interaction and D_u, D_i hold its row and column sums: the leading components
    of the normalized bipartite graph. Root mean square 1; zeros for an item without interactions.

    Costs O(k nnz + k^2 (n_users + n_items)) time and O(k (n_users + n_items)) memory.

    Source: N. Halko, P. G. Martinsson, J. Tropp, Finding structure with randomness, SIAM Review
    2011, algorithms 4.4 and 5.1.
    """
    graph = _normalized(interactions)
    n_users, n_items = graph.shape
    width = min(k + OVERSAMPLING, n_users, n_items)
    rng = np.random.default_rng(seed)
    users = graph @ rng.standard_normal((n_items, width), dtype=np.float32)
    for _ in range(POWER_ITERATIONS):
        items = np.linalg.qr(graph.T @ np.linalg.qr(users)[0])[0]
        users = graph @ items
    _, singular, right = np.linalg.svd((graph.T @ np.linalg.qr(users)[0]).T, full_matrices=False)
    vectors = right[:k].T * np.sqrt(singular[:k])
    length = float(np.sqrt(np.mean(np.square(vectors))))
    return np.asarray(vectors / (length or 1.0), dtype=np.float32)


def fit_map(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the linear map [k, l] that takes `source` [n, k] nearest to `target` [n, l].

    Ridge regression without intercept: spectral vectors tell where items lie among each other, in
    coordinates of their own, and the items that a model has learned tell where that is in its.
    """
    x, y = source.astype(np.float64), target.astype(np.float64)
    gram = x.T @ x
    penalty = RIDGE * np.trace(gram) / len(gram)
    fitted = np.linalg.solve(gram + (penalty or 1.0) * np.eye(len(gram)), x.T @ y)
    return fitted.astype(np.float32)


def _normalized(interactions: sparse.csr_array) -> sparse.csr_array:
    """Divide each interaction by the root of its row's times its column's number; float32."""
    sizes = np.diff(interactions.indptr)
    popularity = np.bincount(interactions.indices, minlength=interactions.shape[1])
    degrees = np.repeat(sizes, sizes) * popularity[interactions.indices]
    values = (degrees**-0.5).astype(np.float32)
    parts = (values, interactions.indices, interactions.indptr)
    return sparse.csr_array(parts, shape=interactions.shape)
