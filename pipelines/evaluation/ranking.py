"""Rank every item for a block of users, without those that are excluded."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from serving.search.best_columns import best_columns
from towers.errors import TrainingError


def rank_items(
    scores: NDArray[np.float32],
    k: int,
    *,
    exclude: scipy.sparse.csr_array,
    scratch: NDArray[np.float32] | None = None,
) -> NDArray[np.int64]:
    """List each user's k best items, best first; ties go to the lower item row.

    Args:
        scores: [n_users, n_items] float; an item of -inf is not listed.
        k: how many items; more than n_items lists them all.
        exclude: [n_users, n_items]; its stored entries are not listed.
        scratch: [at least n_users, n_items], which is overwritten; memory that has been used
            before is several times faster than new one.

    Returns:
        [n_users, min(k, n_items)] int64 item rows; -1 pads a list that ends early.

    Raises:
        TrainingError: a score is NaN or +inf.
    """
    _check(scores)
    items, _ = best_columns(_without(scores, exclude, scratch), k)
    return items


def _check(scores: NDArray[np.float32]) -> None:
    """Refuse scores that have no order; their maximum is NaN if any of them is."""
    highest = scores.max(initial=-np.inf)
    if not highest < np.inf:
        user, item = np.unravel_index(int(np.argmax(scores)), scores.shape)
        raise TrainingError(
            f"scores: expected finite numbers, received {highest} for user {user} of the batch and "
            f"item row {item}; the model has diverged: lower training.learning_rate"
        )


def _without(
    scores: NDArray[np.float32],
    exclude: scipy.sparse.csr_array,
    scratch: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """A C-ordered copy of the scores that is -inf where `exclude` has an entry."""
    masked = np.empty(scores.shape, scores.dtype) if scratch is None else scratch[: len(scores)]
    np.copyto(masked, scores)
    users = np.repeat(np.arange(len(scores)), np.diff(exclude.indptr))
    masked[users, exclude.indices] = -np.inf
    return masked
