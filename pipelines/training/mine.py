"""Mine hard negatives: the items that a model retrieves for a user, without known positives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.data.blocks import all_blocks
from pipelines.data.dataset import Dataset
from pipelines.progress import Advance
from pipelines.training.embed import Vectors, embed
from serving.retrieval.retriever import Retriever
from serving.search.index import ExactIndex, Index, search_without
from serving.search.scann_index import ScannIndex, choose_settings
from towers.negatives import MinedNegatives
from towers.two_tower import TwoTower

BATCH = 4096

LARGEST_EXACT = 2**37
"""The most pairs of a user and an item that are scored exactly; beyond, ScaNN is searched."""

LARGEST_TABLE = 2**27
"""The most mined negatives that are kept (half a GiB); beyond, each user has a random sample."""


def mine_published(
    retriever: Retriever, *, ranks: tuple[int, int], seed: int, advance: Advance
) -> MinedNegatives:
    """Mine a range of ranks of what a published version retrieves for each of its users (u2i)."""
    catalogue = retriever.catalogue("user")
    mined = _Mined(catalogue.size, ranks=ranks, seed=seed)
    for users in _batches(np.arange(catalogue.size)):
        ids = catalogue.ids(users).tolist()
        found = retriever.retrieve_batch("u2i", ids=ids, k=ranks[1], exclude_seen=True)
        mined.keep(users, found.rows)
        advance(len(users))
    return mined.negatives(version=retriever.bundle.version)


def mine_fitted(
    model: TwoTower,
    dataset: Dataset,
    *,
    ranks: tuple[int, int],
    version: int,
    seed: int,
    advance: Advance,
) -> MinedNegatives:
    """Mine a range of ranks of what a model that is not published retrieves for each user.

    The negatives are recorded as mined with `version`. Up to `LARGEST_EXACT`, retrieval is exact.
    """
    vectors = embed(model, dataset)
    index, queries = _index(vectors), vectors["user"]
    mined = _Mined(len(queries), ranks=ranks, seed=seed)
    for block in all_blocks(dataset.interactions):
        seen = block.seen()
        for places in _batches(np.arange(len(block.users))):
            users = block.users[places]
            query, item = seen[places].tocoo().coords
            found, _ = search_without(
                index,
                queries[users],
                k=np.full(len(users), ranks[1]),
                width=ranks[1],
                unwanted=(query.astype(np.int64), item.astype(np.int64)),
            )
            mined.keep(users, found)
            advance(len(users))
    return mined.negatives(version=version)


class _Mined:
    """Collects the mined range of ranks of each user."""

    def __init__(self, n_users: int, *, ranks: tuple[int, int], seed: int) -> None:
        self._ranks, self._rng = ranks, np.random.default_rng(seed)
        n_ranks = ranks[1] - ranks[0] + 1
        self._width = min(n_ranks, max(1, LARGEST_TABLE // max(n_users, 1)))
        self._items = np.full((n_users, self._width), -1, dtype=np.int32)

    def keep(self, users: NDArray[np.int64], found: NDArray[np.int64]) -> None:
        """Keep the mined ranks of the items [n, up to the last rank] found for users, in order."""
        found = found[:, self._ranks[0] - 1 :]
        if found.shape[1] > self._width:
            draws = self._rng.random(found.shape)
            chosen = np.argpartition(draws, self._width - 1, axis=1)[:, : self._width]
            found = np.take_along_axis(found, chosen, axis=1)
        self._items[users, : found.shape[1]] = found

    def negatives(self, *, version: int) -> MinedNegatives:
        """All that was kept."""
        n_used = int(np.count_nonzero((self._items >= 0).any(axis=0)))
        return MinedNegatives(items=self._items[:, :n_used], version=version, ranks=self._ranks)


def _index(vectors: Vectors) -> Index:
    """An index of the items: exact, or ScaNN where there are too many pairs to score."""
    items = vectors["item"]
    if len(vectors["user"]) * len(items) <= LARGEST_EXACT:
        return ExactIndex(items)
    return ScannIndex.build(items, choose_settings(len(items)))


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut rows into batches."""
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
