"""Measure what a context is worth: users are asked at the moments of their test positives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import EvaluationConfig, RunConfig
from pipelines.data.blocks import Interactions, blocks_with
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import Scorer, evaluate
from pipelines.evaluation.left_out import LeftOut
from pipelines.training.embed import Vectors, embed_users, match_scorer
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
    def of(cls, test: Interactions, *, users: NDArray[np.int64], limit: int, seed: int) -> AskedAt:
        """Take the test positives of some users apart by their moments; of many queries a sample.

        Args:
            test: the positives.
            users: the rows of those who ask.
            limit: how many queries there are at most.
            seed: decides which.
        """
        found = [np.empty((3, 0), np.int64)]
        for block in blocks_with(test, users):
            places, items = block.matrix.tocoo().coords
            rows = np.stack([block.users[places], block.moments, items])
            found.append(rows.astype(np.int64))
        user, moment, item = np.concatenate(found, axis=1)
        pairs, query = np.unique(np.stack([user, moment]), axis=1, return_inverse=True)
        shape = (pairs.shape[1], test.shape[1])
        wanted = sparse.csr_array((np.ones(len(item), np.float32), (query.ravel(), item)), shape)
        kept = np.arange(shape[0])
        if len(kept) > limit:
            kept = np.sort(np.random.default_rng(seed).choice(kept, limit, replace=False))
        return cls(users=pairs[0][kept], moments=pairs[1][kept], wanted=wanted[kept])


def measure_context(
    model: TwoTower,
    dataset: Dataset,
    asked: AskedAt,
    *,
    vectors: Vectors,
    left_out: LeftOut,
    config: EvaluationConfig,
) -> dict[str, float]:
    """The deciding metric of queries at moments, with their context and without.

    Args:
        model: the fitted model.
        dataset: what it was fitted on, with contexts.
        asked: the queries.
        vectors: of users and items, without a context.
        left_out: what is not recommended to users.
        config: the metric, and its cut-offs.
    """
    left_out, scorer = left_out.take(asked.users), match_scorer(vectors)
    scorers: dict[str, Scorer] = {
        "with context": moment_scorer(model, dataset, asked, vectors=vectors),
        "without context": lambda queries: scorer(asked.users[queries]),
    }
    return {
        way: evaluate(
            score,
            train=left_out.seen,
            left_out=left_out,
            test=asked.wanted,
            item_counts=dataset.interactions.item_counts,
            config=config,
        ).metric(config.metric)
        for way, score in scorers.items()
    }


def moment_scorer(model: TwoTower, dataset: Dataset, asked: AskedAt, *, vectors: Vectors) -> Scorer:
    """A scorer of every item for some of the queries at moments, with their context if any."""
    bags, join = dataset.context_bags, model.features.interaction.join
    contexts = None if bags is None else embed_users(model, bags)

    def score(queries: NDArray[np.int64]) -> NDArray[np.float32]:
        users = vectors["user"][asked.users[queries]]
        if contexts is not None:
            users = join(users, contexts[asked.moments[queries]])
        return DIRECTIONS["u2i"].score(users, vectors["item"])

    return score


def validation_moments(
    prepared: Prepared, validation: sparse.csr_array, *, config: RunConfig
) -> AskedAt | None:
    """When the users of some validation positives ask; None without a context."""
    if prepared.contexts is None:
        return None
    return AskedAt.of(
        prepared.interactions("validation"),
        users=np.flatnonzero(np.diff(validation.indptr)),
        limit=config.evaluation.validation_users,
        seed=config.seed,
    )
