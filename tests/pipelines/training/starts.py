"""Models as they start, and interactions among which some items are popular."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import Part, every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import initialize, new_table
from towers.two_tower import TwoTower


def untrained(dataset: Dataset, config: RunConfig, folder: Path) -> Fitted:
    """The start, as where it is published."""
    table = new_table(dataset, config)
    initialize(table, dataset, config=config)
    model = TwoTower(table, margin=0.0, hardest=1, l2=0.0)
    return Fitted(
        model=model, best_epoch=0, records=(), checkpoint=str(folder / "epoch-0"), mined=None
    )


def thinned(prepared: Prepared, part: Part) -> sparse.csr_array:
    """The interactions of a part, of which the first items keep all and the last a tenth."""
    found = every_positive(prepared.interactions(part)).tocoo()
    user, item = found.coords
    kept = np.random.default_rng(5).random(len(item)) < np.linspace(1.0, 0.1, found.shape[1])[item]
    entries = np.ones(kept.sum(), np.float32), (user[kept], item[kept])
    return sparse.csr_array(entries, shape=found.shape)


def best_of(scores: NDArray[np.float32], job: Fit) -> Fit:
    """The job with a validation part that holds the two best unseen items of each user."""
    known = job.known.toarray() > 0
    top = np.argsort(np.where(known, -np.inf, scores), axis=1)[:, -2:]
    users = np.repeat(np.arange(len(scores)), 2)
    held = sparse.csr_array((np.ones(users.size, np.float32), (users, top.ravel())), known.shape)
    return dataclasses.replace(job, validation=held)
