"""Place items of few interactions where the start has them, in the coordinates of trained users.

Where training does not rank better than the start, it still spoils the items of few interactions:
they are negatives far more often than positives. Their vectors at the start, which come from all
interactions, then say more of them than what few steps have taught. But a mix of the start and of
trained vectors has users in other coordinates. So the linear map A with which the scores of the
start come out nearest, u A s ~ u' s for users u of the mix and u' of the start, takes a vector s of
the start there, and ids get what is missing to it.

Source: as for the items that are new to a trained model, where `towers.start.fit_map` is described.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.training.embed import embed, embed_items
from pipelines.training.fit import Fit, Fitted
from towers.interactions.interaction import FM
from towers.start import fit_map
from towers.two_tower import TwoTower

FEW = 5
"""An item of at most so many interactions is placed; of twenty, training says more than the start,
most of all where there are few interactions in all."""
RIDGE = 1.0
"""What the map pays for a squared entry: of the start, what is said by few users is left out."""
MOST_USERS = 10_000
"""How many users the map is fitted to, at most."""


def place_rare(fitted: Fitted, job: Fit, *, start: Path) -> None:
    """Give items of few interactions their vectors of the start, by their ids and in place.

    Nothing is done for items without an interaction, for those whose ids have no row, and for
    members of the family other than the plain machine.

    Args:
        fitted: the model, a mix of the start and of what was trained.
        job: its fit.
        start: the checkpoint of the start.
    """
    model, dataset = fitted.model, job.dataset
    counts, rows = dataset.interactions.item_counts, dataset.id_rows("item")
    items = np.flatnonzero((counts > 0) & (counts <= FEW) & (rows >= 0))
    users = np.flatnonzero(dataset.interactions.user_counts)
    if not len(items) or not isinstance(model.features.interaction, FM):
        return
    rng = np.random.default_rng(job.config.seed)
    users = np.sort(rng.permutation(users)[:MOST_USERS])
    mixed = embed(model, dataset, only_users=users)
    kept = [variable.numpy() for variable in model.features.trainable_variables]
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(features=model.features))
    checkpoint.read(str(start)).assert_existing_objects_matched().expect_partial()
    started = embed(model, dataset, only_users=users)
    for variable, value in zip(model.features.trainable_variables, kept, strict=True):
        variable.assign(value)
    back = fit_map(mixed["user"][users, 1:], started["user"][users, 1:], ridge=RIDGE)
    carried = started["item"][items]
    carried[:, 1:] = carried[:, 1:] @ back.T
    _move(model, job, items=items, by=carried - mixed["item"][items])


def _move(model: TwoTower, job: Fit, *, items: NDArray[np.int64], by: NDArray[np.float32]) -> None:
    """Move the vectors of some items, [n, 1 + k], by their ids alone."""
    features, rows = model.features, job.dataset.id_rows("item")[items]
    bags, dense = job.dataset.item_bags[items], job.dataset.dense("item").take(items)
    wanted = embed_items(model, bags, dense=dense)[:, 0] + by[:, 0]
    features.v.scatter_add(tf.IndexedSlices(by[:, 1:], rows))
    missing = wanted - embed_items(model, bags, dense=dense)[:, 0]
    features.w.scatter_add(tf.IndexedSlices(missing, rows))
