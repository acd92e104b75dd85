"""GF-CF: two graph filters in closed form, without anything learned.

Source: Y. Shen et al., How powerful is graph convolution for recommendation?, CIKM 2021:
    R (N'N + a D^-1/2 V V' D^1/2), where N = D_user^-1/2 R D^-1/2 are the interactions R divided by
    the roots of both degrees, and V its leading right singular vectors.
The second filter is an inner product of vectors; the first has no vectors, and works on R itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.peers.workers.contract import Factors, Job, work


def train(job: Job) -> Factors:
    """Divide by the degrees, and decompose; a user without interactions gets a vector of zeros."""
    interactions = job.train
    by_item = _degrees(interactions, axis=0) ** -0.5
    by_user = _degrees(interactions, axis=1) ** -0.5
    graph = sparse.csr_matrix(interactions.multiply(by_item).multiply(by_user[:, np.newaxis]))
    found = svds(graph, k=job.settings["directions"], return_singular_vectors="vh", rng=job.seed)
    directions: NDArray[np.float32] = found[2].T
    passed = directions * by_item[:, np.newaxis]
    return Factors(
        users=job.settings["weight"] * (interactions @ passed),
        items=directions / by_item[:, np.newaxis],
        graph=graph,
    )


def _degrees(interactions: sparse.csr_matrix, *, axis: int) -> NDArray[np.float32]:
    """The number of interactions of each item or user, 1 where there are none."""
    counts = np.asarray(interactions.sum(axis=axis)).ravel()
    return np.maximum(counts, 1.0).astype(np.float32)


if __name__ == "__main__":
    work(train, packages=("scipy",))
