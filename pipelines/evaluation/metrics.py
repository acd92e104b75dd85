"""Metrics at K of ranked lists: pure functions, one figure a user.

Shapes and dtypes, the same in every function:

- `ranked` [n_users, k_max] int64: item rows, best first; -1 pads a list that ends early.
- `relevant` [n_users, k_max] bool: which of `ranked` are relevant; never a padding.
- `n_relevant` [n_users] int64: how many relevant items the user has in all; at least 1.
- `k`: the cut-off, at least 1; may exceed k_max, for lists that hold the whole corpus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

PER_USER = ("recall", "ndcg", "hit_rate", "mrr", "popularity")
"""The metrics that are a mean over users; coverage is a share of items."""


def recall(relevant: Flags, n_relevant: Rows, *, k: int) -> Floats:
    """The share of the user's relevant items among the first k."""
    hits: Rows = np.count_nonzero(relevant[:, :k], axis=1)
    return hits / n_relevant


def ndcg(relevant: Flags, n_relevant: Rows, *, k: int) -> Floats:
    """Discounted cumulative gain of the first k over the best that min(k, n_relevant) can give.

    Binary gains and the discount 1 / log2(rank + 1): Järvelin and Kekäläinen, 2002.
    """
    longest = max(relevant.shape[1], int(n_relevant.max(initial=1)))
    discounts: Floats = 1.0 / np.log2(np.arange(2, min(k, longest) + 2, dtype=np.float64))
    within = relevant[:, :k]
    gain: Floats = np.where(within, discounts[: within.shape[1]], 0.0).sum(axis=1)
    n_ideal: Rows = np.minimum(n_relevant, k)
    return gain / np.cumsum(discounts)[n_ideal - 1]


def hit_rate(relevant: Flags, *, k: int) -> Floats:
    """1 where any of the first k is relevant, else 0."""
    return np.where(relevant[:, :k].any(axis=1), 1.0, 0.0)


def reciprocal_rank(relevant: Flags, *, k: int) -> Floats:
    """1 / rank of the first relevant item (1 = best) among the first k; 0 where there is none."""
    within = relevant[:, :k]
    first = within.argmax(axis=1) + 1
    return np.where(within.any(axis=1), 1.0 / first, 0.0)


def popularity_of(ranked: Rows, popularity: Rows, *, k: int) -> Floats:
    """Mean `popularity` [n_items] of the first k recommended items; 0 for an empty list."""
    within = ranked[:, :k]
    shown = within >= 0
    total: Rows = np.where(shown, popularity[within], 0).sum(axis=1)
    n_shown: Rows = np.count_nonzero(shown, axis=1)
    return total / np.maximum(n_shown, 1)


def covered(ranked: Rows, n_items: int, *, k: int) -> Flags:
    """Which of the items [n_items] are among the first k of at least one user."""
    within = ranked[:, :k]
    found = np.zeros(n_items, dtype=np.bool_)
    found[within[within >= 0]] = True
    return found


def per_user(
    ranked: Rows, relevant: Flags, *, n_relevant: Rows, popularity: Rows, k: int
) -> dict[str, Floats]:
    """Every metric of `PER_USER` at k, by its full name, such as `recall@20`."""
    figures = (
        recall(relevant, n_relevant, k=k),
        ndcg(relevant, n_relevant, k=k),
        hit_rate(relevant, k=k),
        reciprocal_rank(relevant, k=k),
        popularity_of(ranked, popularity, k=k),
    )
    return {f"{name}@{k}": values for name, values in zip(PER_USER, figures, strict=True)}
