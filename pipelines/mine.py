"""Mine hard negatives: what a model retrieves for a user, less what the user is known to like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from serving.index import Index
from towers.negatives import MinedNegatives

BATCH = 1024


def mine_negatives(
    index: Index,
    *,
    queries: NDArray[np.float32],
    dataset: Dataset,
    ranks: tuple[int, int],
    version: int,
) -> MinedNegatives:
    """Retrieve the ranks from..to of every user's candidates, known positives removed first.

    Args:
        index: the previous version's u2i index; its rows are the dataset's item rows.
        queries: the previous version's V_user of the dataset's users, [n_users, 1 + k].
        dataset: the positives to remove.
        ranks: first and last rank, 1 = best.
        version: whose index it is, for the record.
    """
    first, last = ranks[0], min(ranks[1], index.size)
    width = max(last - first + 1, 0)
    mined = np.full((len(queries), width), -1, dtype=np.int64)
    sizes = np.diff(dataset.interactions.indptr)
    for start in range(0, len(queries), BATCH):
        users = slice(start, min(start + BATCH, len(queries)))
        rows, _ = index.search(queries[users], last + int(sizes[users].max(initial=0)))
        rows = _without_known(rows, dataset, users=users)[:, first - 1 : last]
        mined[users, : rows.shape[1]] = rows
    return MinedNegatives(items=mined, version=version, ranks=ranks)


def _without_known(
    rows: NDArray[np.int64], dataset: Dataset, *, users: slice
) -> NDArray[np.int64]:
    """Move each user's known positives, and padding, behind the rest as -1; order is kept."""
    matrix = dataset.interactions[users]
    n_items = matrix.shape[1]
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    known = np.isin(np.arange(len(rows))[:, np.newaxis] * n_items + rows, owner * n_items + matrix.indices)
    dropped = known | (rows < 0)
    order = np.argsort(dropped, axis=1, kind="stable")
    return np.take_along_axis(np.where(dropped, -1, rows), order, axis=1)
