"""Calibrate what has no id: how strongly the features of an item that nobody has chosen count.

Vectors of items that training knows are sums of an id and of features; where the id is unknown, the
features alone are shorter, and such items lose every place to others. So their features are
multiplied by a factor, which is chosen on the validation users.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.ranking import rank_items
from pipelines.training.embed import Vectors, embed, embed_items, match_scorer
from towers.two_tower import TwoTower

SCALES = (1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0)
"""The factors that are tried by default; the least of the best is chosen."""
ALL_SCALES = tuple(np.geomspace(0.25, 8.0, 21).tolist())
"""The factors that are tried where cold items are to have a share of places."""
FEWEST = 100
"""Validation positives among items without a training interaction from which these suffice."""
SIMULATED = 0.1
"""Of the known items, the share that is treated as unknown where too few are."""
USERS = 1000
"""How many validation users are ranked for."""


def calibrate(
    model: TwoTower,
    dataset: Dataset,
    *,
    validation: sparse.csr_array,
    known: sparse.csr_array,
    config: RunConfig,
) -> float:
    """Choose the factor of the features of items whose id is unknown.

    By default, the one with the best validation metric over all items, cold and warm: of items that
    training has no interaction of, and, where validation has hardly any of them, of a random tenth
    of the others without their ids. With a share of places as `training.cold_items`, the one that
    gives these items nearest to that share of the first places.

    Args:
        model: trained without `validation`.
        dataset: what it was trained on.
        validation: positives [n_users, n_items].
        known: what the users with some have in training, [n_users, n_items].
        config: the metric and `training.cold_items`.
    """
    cold = _cold_items(dataset, validation, seed=config.seed)
    if not len(cold) or np.diff(dataset.item_bags.indptr).max(initial=0) <= 1:
        return 1.0
    validation = _some_users(validation, seed=config.seed)
    vectors, bags = embed(model, dataset), _bags_without_ids(dataset, cold)
    share, figures = config.training.cold_items, []
    scales = SCALES if share == "fair" else ALL_SCALES
    for scale in scales:
        items = vectors["item"].copy()
        items[cold] = embed_items(model, bags * np.float32(scale))
        scaled: Vectors = {"user": vectors["user"], "item": items}
        if share == "fair":
            settings = dataclasses.replace(config.evaluation, k=(_places(config),))
            found = evaluate(
                match_scorer(scaled),
                train=known,
                test=validation,
                config=settings,
                item_counts=dataset.interactions.item_counts,
            )
            figures.append(found.metric(config.evaluation.metric))
        else:
            taken = _share_of_places(scaled, cold, validation, known=known, k=_places(config))
            figures.append(-abs(taken - float(share)))
    return float(scales[int(np.argmax(figures))])


def _places(config: RunConfig) -> int:
    """The K of the metric that decides."""
    return int(config.evaluation.metric.partition("@")[2])


def _cold_items(dataset: Dataset, validation: sparse.csr_array, *, seed: int) -> NDArray[np.int64]:
    """The rows of the items that stand for those without an id."""
    is_cold = ~dataset.knows_item
    unseen = dataset.interactions.item_counts == 0
    if np.count_nonzero(unseen[validation.indices]) < FEWEST:
        is_cold |= np.random.default_rng(seed).random(len(is_cold)) < SIMULATED
    return np.flatnonzero(is_cold)


def _bags_without_ids(dataset: Dataset, items: NDArray[np.int64]) -> sparse.csr_array:
    """The bags of some items as if their ids were unknown, [n, n_rows]."""
    bags = dataset.item_bags
    parts = (bags.data, dataset.rows_without_ids("item"), bags.indptr)
    return sparse.csr_array(parts, shape=bags.shape)[items]


def _some_users(positives: sparse.csr_array, *, seed: int) -> sparse.csr_array:
    """The positives of at most `USERS` users; others' rows empty."""
    users = np.flatnonzero(np.diff(positives.indptr))
    if len(users) <= USERS:
        return positives
    kept = np.zeros(positives.shape[0], dtype=np.float32)
    kept[np.random.default_rng(seed).choice(users, USERS, replace=False)] = 1.0
    some = sparse.csr_array(sparse.diags_array(kept) @ positives)
    some.eliminate_zeros()
    return some


def _share_of_places(
    vectors: Vectors,
    cold: NDArray[np.int64],
    validation: sparse.csr_array,
    *,
    known: sparse.csr_array,
    k: int,
) -> float:
    """The share of the first k places of the validation users that go to the items `cold`."""
    users = np.flatnonzero(np.diff(validation.indptr))
    scores = vectors["user"][users] @ vectors["item"].T
    ranked = rank_items(scores, k, exclude=known[users])
    return float(np.isin(ranked, cold).mean())
