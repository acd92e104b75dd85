"""Measure what a context is worth: users are asked at the moments of their test positives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import EvaluationConfig
from pipelines.data.blocks import Interactions, all_blocks
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import Scorer, evaluate
from pipelines.training.embed import Vectors, embed_users
from towers.directions import DIRECTIONS
from towers.two_tower import TwoTower


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedAt:
    """Queries of a user at a moment, [n], and what each is to find."""

    users: NDArray[np.int64]
    """User rows."""
    moments: NDArray[np.int64]
    """Rows of their contexts."""
    wanted: sparse.csr_array
    """The user's positives at that moment, [n, n_items]."""

    @classmethod
    def of(cls, test: Interactions, *, users: NDArray[np.int64]) -> AskedAt:
        """Take the test positives of some users apart by their moments."""
        found = []
        for block in all_blocks(test):
            places, items = block.matrix.tocoo().coords
            rows = np.stack([block.users[places], block.moments(), items])
            found.append(rows[:, np.isin(rows[0], users)].astype(np.int64))
        user, moment, item = np.concatenate(found, axis=1)
        pairs, query = np.unique(np.stack([user, moment]), axis=1, return_inverse=True)
        shape = (pairs.shape[1], test.shape[1])
        wanted = sparse.csr_array((np.ones(len(item), np.float32), (query.ravel(), item)), shape)
        return cls(users=pairs[0], moments=pairs[1], wanted=wanted)


def measure_context(
    model: TwoTower,
    dataset: Dataset,
    asked: AskedAt,
    *,
    vectors: Vectors,
    seen: sparse.csr_array,
    config: EvaluationConfig,
) -> dict[str, float]:
    """The deciding metric of queries at moments, `with context` and `without context`.

    Args:
        model: the fitted model.
        dataset: what it was fitted on, with contexts.
        asked: the queries.
        vectors: of users and items, without a context.
        seen: what is not recommended to users, [n_users, n_items].
        config: the metric, and its cut-offs.
    """
    if dataset.context_bags is None:
        return {}
    contexts = embed_users(model, dataset.context_bags)
    join = model.features.interaction.join

    def scorer(*, with_context: bool) -> Scorer:
        def score(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            users = vectors["user"][asked.users[rows]]
            if with_context:
                users = join(users, contexts[asked.moments[rows]])
            return DIRECTIONS["u2i"].score(users, vectors["item"])

        return score

    known = sparse.csr_array(seen[asked.users])
    return {
        name: evaluate(
            scorer(with_context=with_context),
            train=known,
            test=asked.wanted,
            item_counts=dataset.interactions.item_counts,
            config=config,
        ).metric(config.metric)
        for name, with_context in (("with context", True), ("without context", False))
    }
