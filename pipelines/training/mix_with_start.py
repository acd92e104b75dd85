"""Mix what was trained with the start: weights on the line between the two, chosen on validation.

Training fits the interactions that it sees, and forgets of the start what they do not tell. Weights
a little way back towards the start often rank better than both, most of all where what is to come
differs from what was held out. So, of shares that validation cannot tell from the best, the largest
is taken: the model that is nearest to the start.

Sources: M. Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022; for the rule of one
standard error, L. Breiman et al., Classification and Regression Trees, 1984.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from scipy import sparse

from pipelines.evaluation.evaluate import user_figures
from pipelines.evaluation.race import near_best
from pipelines.progress import Advance, Reporter
from pipelines.training.fit import START, Fit, Fitted, validation_queries
from pipelines.training.place_rare import place_rare
from towers.layers import FeatureTable

SHARES = (0.0, 0.1, 0.2, 0.3)
"""The shares of the start that are tried. Few validation users can tell little apart, and must not
undo what was trained."""
FAR = 0.75
"""The share of the start where no epoch is better than the start."""
HALF = 0.5
"""Likewise, where the start is another version, which does not know what is new."""


def mix_with_start(fitted: Fitted, job: Fit, reporter: Reporter, *, share: float = 0.0) -> Fitted:
    """Move the weights towards those that the fit started from, and keep them in a checkpoint.

    Nothing is done where the start itself is the best epoch, or where validation likes no share.

    Args:
        fitted: the model as `job` has trained it; changed in place.
        job: its data and settings; its validation part, if it has one, decides the share.
        reporter: is told the share.
        share: what another fit's validation part has decided, for a job that has none.
    """
    if not fitted.best_epoch or (job.validation is None and not share):
        return fitted
    move = _line_to_start(fitted.model.features, job.directory / START)
    if job.validation is not None:
        with reporter.bar("share of the start", len(SHARES)) as advance:
            share = _best_share(fitted, job, move, validation=job.validation, advance=advance)
    move(share)
    if not share:
        return fitted
    if share >= HALF:
        place_rare(fitted, job, start=job.directory / START)
    reporter.say(f"  weights are {share:.0%} of the way back to the start")
    return fitted.kept(start_share=share)


def part_way(fitted: Fitted, job: Fit) -> Fitted:
    """The weights a part of the way from the start to the last epoch, in a checkpoint.

    Items of few interactions are placed where the start has them.

    Args:
        fitted: the start, which was the best epoch; its model is changed in place.
        job: its fit, of which at least one epoch is done.
    """
    last = int(fitted.records[-1]["epoch"])
    _read(fitted, job.directory / f"epoch-{last}")
    trained, decided = replace(fitted, best_epoch=last), replace(job, validation=None)
    share = FAR if job.parent is None else HALF
    return mix_with_start(trained, decided, Reporter(), share=share)


def back_to_start(fitted: Fitted, job: Fit) -> Fitted:
    """The start as it was before `part_way`, in place."""
    _read(fitted, job.directory / START)
    return fitted


def _read(fitted: Fitted, path: Path) -> None:
    """Read the checkpoint of an epoch."""
    tf.train.Checkpoint(model=fitted.model).read(str(path)).assert_existing_objects_matched()


def _line_to_start(table: FeatureTable, start: Path) -> Callable[[float], None]:
    """What moves the table to a share of the start, from 0, which is where it is now."""
    trained = [variable.numpy() for variable in table.trainable_variables]
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(features=table))
    checkpoint.read(str(start)).assert_existing_objects_matched().expect_partial()
    ways = [
        variable.numpy() - value
        for variable, value in zip(table.trainable_variables, trained, strict=True)
    ]

    def move(share: float) -> None:
        for variable, value, way in zip(table.trainable_variables, trained, ways, strict=True):
            variable.assign(value + share * way)

    return move


def _best_share(
    fitted: Fitted,
    job: Fit,
    move: Callable[[float], None],
    *,
    validation: sparse.csr_array,
    advance: Advance,
) -> float:
    """The largest share within one standard error of the best validation metric."""
    found = {}
    for share in SHARES:
        move(share)
        asked = validation_queries(fitted.model, job, validation=validation)
        found[share] = user_figures(
            asked.scorer,
            test=asked.wanted,
            left_out=asked.left_out,
            metric=job.config.evaluation.metric,
        )
        advance(1)
    return max(near_best(found, errors=1.0 if job.parent is None else 0.0))
