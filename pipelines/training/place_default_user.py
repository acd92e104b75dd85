"""Place the default user, who stands for those of whom nothing is known.

Training shows what to recommend to users by what is known of them. The others have the vector of
the mean user, whose score of an item is the mean of all users' scores, times a scale: how much it
counts beside the items' first-order terms. Validation decides the scale, where its users are asked
for as if nothing were known of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, sample_users
from pipelines.evaluation.evaluate import user_figures
from pipelines.progress import Reporter
from pipelines.training.calibrate import USERS
from pipelines.training.embed import embed_items, embed_users
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import mean_user, set_columns

SCALES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.0)
"""The scales that are tried; the first of equally good ones is taken."""


def measure_default_user(
    fitted: Fitted, job: Fit, *, term: NDArray[np.float32] | float = 0.0
) -> float | None:
    """Choose the scale of the mean user that is best for the validation part.

    Args:
        fitted: the model, calibrated; its default user is changed.
        job: its data, with a validation part.
        term: what trends add to the score of each item, [n_items].

    Returns:
        None where there is no validation part, or no default user.
    """
    dataset, row = job.dataset, job.dataset.vocabulary.default_user_row
    if job.validation is None or row is None:
        return None
    test = sample_users(HeldInteractions(job.validation), limit=USERS, seed=job.config.seed)
    items = embed_items(fitted.model, dataset.item_bags, dense=dataset.dense("item"))
    mean = mean_user(fitted.model.features, dataset)
    entry = np.ones(1, np.float32), ([0], [row])
    alone = sparse.csr_array(entry, shape=(1, dataset.vocabulary.n_rows))

    def measured(scale: float) -> float:
        set_columns(fitted.model.features.v, np.float32(scale) * mean, rows=np.array([row]))
        scores = embed_users(fitted.model, alone) @ items.T + term
        figures = user_figures(
            lambda users: np.broadcast_to(scores, (len(users), len(items))),
            test=test,
            left_out=job.left_out,
            metric=job.config.evaluation.metric,
        )
        return float(figures.mean())

    return max(SCALES, key=measured)


def place_default_user(
    fitted: Fitted, job: Fit, reporter: Reporter, *, scale: float | None
) -> Fitted:
    """Set the default user to a multiple of the mean user, in place, and in a checkpoint.

    Args:
        fitted: the model, calibrated.
        job: its data.
        reporter: is told the scale.
        scale: what `measure_default_user` found; by default 1.
    """
    row = job.dataset.vocabulary.default_user_row
    if row is None:
        return fitted
    scale = 1.0 if scale is None else scale
    placed = np.float32(scale) * mean_user(fitted.model.features, job.dataset)
    set_columns(fitted.model.features.v, placed, rows=np.array([row]))
    reporter.say(f"  users of whom nothing is known: {scale:g} times the mean user")
    return fitted.kept(default_user_scale=scale)
