"""LightFM with the WARP loss, and with the features that there are."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from lightfm import LightFM  # type: ignore[import-not-found]
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.peers.workers.contract import Factors, Job, with_ids, work


def train(job: Job) -> Factors:
    """Fit LightFM; users and items are the sum of their features, their ids among them."""
    settings: dict[str, Any] = dict(job.settings)
    epochs = settings.pop("epochs")
    users = _bags(job.user_features, seen=np.diff(job.train.indptr) > 0)
    items = _bags(job.item_features, seen=job.train.getnnz(axis=0) > 0)
    model = LightFM(loss="warp", **settings, random_state=job.seed)
    model.fit(
        job.train.tocoo(),
        user_features=users,
        item_features=items,
        epochs=epochs,
        num_threads=os.cpu_count() or 1,
    )
    _, user_vectors = model.get_user_representations(users)
    item_biases, item_vectors = model.get_item_representations(items)
    ones = np.ones(len(user_vectors), dtype=np.float32)  # a user's own bias changes no order
    return Factors(
        users=np.column_stack([user_vectors, ones]),
        items=np.column_stack([item_vectors, item_biases]),
    )


def _bags(features: sparse.csr_matrix, *, seen: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Bags of ids and features that add up to 1, as LightFM's own `Dataset` makes them."""
    bags = with_ids(features, seen=seen)
    total = np.asarray(abs(bags).sum(axis=1)).ravel()
    scale = sparse.diags(1.0 / np.where(total > 0, total, 1.0), format="csr")
    return sparse.csr_matrix(scale @ bags, dtype=np.float32)


if __name__ == "__main__":
    work(train, packages=("lightfm-next",))
