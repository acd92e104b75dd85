"""Mine hard negatives: what a model retrieves for a user, less what the user is known to like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.dataset import Dataset
from pipelines.embed import embed
from pipelines.progress import Advance
from serving.index import ExactIndex, search_without
from serving.retriever import Retriever
from serving.seen import Seen
from towers.negatives import MinedNegatives
from towers.two_tower import TwoTower

BATCH = 4096

Retrieve = Callable[[NDArray[np.int64], int], NDArray[np.int64]]
"""Answers user rows [batch] and k with item rows [batch, k], known positives left out."""


def mine_published(
    retriever: Retriever, *, ranks: tuple[int, int], advance: Advance
) -> MinedNegatives:
    """Take ranks from..to of a published version's own u2i retrieval, for all its users."""
    ids = retriever.catalogue("user").ids

    def retrieve(users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        return retriever.retrieve_batch("u2i", ids=ids[users].tolist(), k=k, exclude_seen=True).rows

    return _mine(
        retrieve,
        n_users=len(ids),
        ranks=ranks,
        version=retriever.bundle.version,
        advance=advance,
    )


def mine_fitted(
    model: TwoTower,
    dataset: Dataset,
    *,
    ranks: tuple[int, int],
    version: int,
    advance: Advance,
) -> MinedNegatives:
    """Take ranks from..to of a model's exact retrieval; it stands in for `version`."""
    vectors = embed(model, dataset)
    index, queries = ExactIndex(vectors["item"]), vectors["user"]
    known = Seen(dataset.interactions)

    def retrieve(users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        found, _ = search_without(
            index,
            queries[users],
            k=np.full(len(users), k),
            width=k,
            unwanted=known.pairs("user", users),
        )
        return found

    return _mine(retrieve, n_users=len(queries), ranks=ranks, version=version, advance=advance)


def _mine(
    retrieve: Retrieve, *, n_users: int, ranks: tuple[int, int], version: int, advance: Advance
) -> MinedNegatives:
    """Retrieve for all users, in batches, and keep the ranks that are asked for."""
    first, last = ranks
    parts = []
    for start in range(0, n_users, BATCH):
        users = np.arange(start, min(start + BATCH, n_users))
        parts.append(retrieve(users, last)[:, first - 1 :])
        advance(len(users))
    return MinedNegatives(items=np.concatenate(parts), version=version, ranks=ranks)
