"""The paired bootstrap over users: how far a difference of two versions may be chance."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics import Floats

DRAWS = 1000
LEVEL = 0.95
"""The share of the draws that an interval holds."""


def paired_intervals(differences: Floats, *, seed: int = 0) -> Floats:
    """The percentile intervals of the means of paired differences (Efron and Tibshirani, 1993).

    Users are drawn with replacement, as many as there are, and all columns share the draws.

    Args:
        differences: [n_users, n_metrics], the figure of one version minus that of the other.
        seed: decides the draws.

    Returns:
        [2, n_metrics], the lower and the upper end.
    """
    rng = np.random.default_rng(seed)
    n_users, n_metrics = differences.shape
    means = np.empty((DRAWS, n_metrics))
    for draw in range(DRAWS):
        counts = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users)
        means[draw] = counts @ differences / n_users
    tail = (1 - LEVEL) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0)
