"""Deal the items of users to folds, of which each is the positives of one query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def deal_folds(
    matrix: sparse.csr_array, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal each user's entries to folds 0, 1, ... in random order; [n_entries]."""
    users, place = _places(matrix)
    order = np.lexsort((rng.random(len(users)), users))
    folds = np.empty(len(users), dtype=np.int64)
    folds[order] = place % n_folds
    return folds


def cut_folds(
    matrix: sparse.csr_array, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Cut each user's entries, in their order, at random places into folds 0, 1, ...; [n_entries].

    A user with n entries has min(n, n_folds) folds, none of them empty.
    """
    users, place = _places(matrix)
    draws = rng.random(len(users))
    draws[place == 0] = 1.0  # there is nothing to cut before the first entry
    order = np.lexsort((draws, users))
    starts = np.zeros(len(users), dtype=np.int64)
    starts[order] = place < np.minimum(np.diff(matrix.indptr), n_folds)[users] - 1
    cuts = np.concatenate([[0], np.cumsum(starts)])
    return np.asarray(cuts[1:] - cuts[matrix.indptr[users]])


def _places(matrix: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row of each entry, and its place within the row; [n_entries] each."""
    sizes = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return rows, np.arange(len(rows)) - matrix.indptr[rows]
