"""Calibrate what has no id: the first-order weight that items of unknown ids share.

An item that nobody has chosen is the sum of its features alone, which is shorter than an id and
features together, so that it loses every place to others. A weight is therefore added to its
first-order term: w of the row that unknown item ids share. The order of these items among
themselves stays, and the model stays a factorization machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, left_out, sample_users
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import LARGEST_BLOCK, evaluate
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Advance, Reporter, ignore
from pipelines.training.embed import Vectors, embed, embed_without_ids, match_scorer
from pipelines.training.fit import Fit, Fitted
from pipelines.training.regress_features import embed_as_new
from serving.search.best_columns import best_columns
from towers.two_tower import TwoTower

COARSE = tuple(float(step) for step in range(-2, 7))
"""The weights that are tried first, in standard deviations of the scores."""
FINE = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)
"""Steps around the best of them that are tried next."""
FEWEST = 100
"""Validation positives among items without a training interaction from which these suffice."""
SIMULATED = 0.1
"""Of the known items, the share that is treated as new where too few are."""
USERS = 1000
"""How many users are ranked for."""
KEPT = 0.9
"""What known items keep of their own metric, at the least."""


def calibrate(
    fitted: Fitted, job: Fit, reporter: Reporter, *, weight: float | None = None
) -> Fitted:
    """Add to w of unknown item ids what `training.cold_items` asks for.

    The weight is added to the model in place and kept in a checkpoint of its own, from which all
    that is published follows. Where items are their ids alone, nothing is added.

    Args:
        fitted: the model as `job` has trained it.
        job: its data and settings; its validation part, if it has one, decides what is fair.
        reporter: is told what is added.
        weight: what another fit's validation part has decided, for a job that has none.
    """
    dataset, rule = job.dataset, job.config.training.cold_items
    row = dataset.unknown_item_row
    only_ids = np.diff(dataset.item_bags.indptr).max(initial=0) <= 1
    if row is None or (only_ids and not dataset.dense("item").x.any()):
        return fitted
    if rule != "fair":
        weight = weight_for_share(fitted.model, job, share=rule)
    elif job.validation is not None:
        with reporter.bar("weight of unknown ids", len(COARSE) + len(FINE)) as advance:
            weight = fair_weight(
                fitted.model,
                job,
                validation=job.validation,
                penalty=fitted.feature_penalty,
                advance=advance,
            )
    if weight is None:
        reporter.say(
            "  items with unknown ids are left as training made them, which ranks them low: "
            "without a validation part nothing says what is fair; set training.cold_items to a "
            "share of places"
        )
        return fitted
    reporter.say(f"  first-order weight of items with unknown ids: {weight:+.3g}")
    fitted.model.features.w.scatter_add(tf.IndexedSlices([weight], [row]))
    return fitted.kept(unknown_item_weight=weight)


def fair_weight(
    model: TwoTower,
    job: Fit,
    *,
    validation: sparse.csr_array,
    penalty: float | None = None,
    advance: Advance = ignore,
) -> float:
    """Choose the weight with the best validation metric over all items, cold and warm.

    Cold are the items of which training has no interaction and, where validation has hardly any of
    them, a random tenth of the others, as if they had come after training: the features do not know
    them, histories are without them, and those who chose one want it. Warm items keep at least
    `KEPT` of the metric that they have without a weight, since what is known of them should not be
    lost to what is guessed of others; but for a validation part that came after training and has
    cold items, which shows how much is asked of either. Of equally good weights, the one nearest
    to zero is chosen.

    Args:
        model: the model; it is the same afterwards.
        job: its data.
        validation: who wants what, [n_users, n_items].
        penalty: that of the regression by which features are placed; None where they are not.
        advance: is called for each weight that is tried.
    """
    dataset, settings = job.dataset, job.config.evaluation
    unseen = dataset.interactions.item_counts == 0
    is_enough = np.count_nonzero(unseen[validation.indices]) >= FEWEST
    test = sample_users(HeldInteractions(validation), limit=USERS, seed=job.config.seed)
    asked = _ask(model, job, test) if is_enough else _hide(model, job, test, penalty=penalty)
    vectors, cold, users = asked.vectors, asked.cold, np.flatnonzero(np.diff(test.indptr))
    learned = vectors["item"][cold, 0]
    unit = score_spread(vectors["user"][users], vectors["item"])
    settings = dataclasses.replace(settings, k=(_places(job),), cold_item_interactions=1)
    counts = np.maximum(dataset.interactions.item_counts, 1)
    counts[cold] = 0  # what `evaluate` calls warm are then all others

    def measure(steps: float) -> tuple[float, float]:
        """The metric over all items, and over the warm ones among all."""
        advance(1)
        vectors["item"][cold, 0] = learned + np.float32(steps * unit)
        found = evaluate(
            match_scorer(vectors),
            train=asked.known,
            left_out=asked.left_out,
            test=asked.wanted,
            config=settings,
            item_counts=counts,
        )
        has_warm = found.segments["warm_items"].n_users > 0
        warm = found.metric(settings.metric, "warm_items") if has_warm else 0.0
        return found.metric(settings.metric), warm

    found = {steps: measure(steps) for steps in COARSE}
    by_time = job.config.split.by != "random" and dataset.interactions.has_times
    kept = 0.0 if is_enough and by_time else KEPT
    best = _best_step(found, kept=kept)
    found |= {best + step: measure(best + step) for step in FINE}
    return _best_step(found, kept=kept) * unit


class _Asked(NamedTuple):
    """What validation users are asked for, and by what they are known."""

    vectors: Vectors
    """Of users and items, of the cold ones as they are without ids."""
    cold: NDArray[np.int64]
    """The rows of the cold items."""
    known: sparse.csr_array
    """The positives that users are known by, [n_users, n_items]."""
    wanted: sparse.csr_array
    """Those that they want, likewise."""
    left_out: LeftOut


def _ask(model: TwoTower, job: Fit, test: sparse.csr_array) -> _Asked:
    """Validation as it is, in which items of unknown ids are cold."""
    cold = _cold_items(job.dataset, simulated=False, seed=job.config.seed)
    users = np.flatnonzero(np.diff(test.indptr))
    vectors = _vectors_without_ids(model, job.dataset, cold, only_users=users)
    return _Asked(vectors, cold, job.known, test, job.left_out)


def _hide(model: TwoTower, job: Fit, test: sparse.csr_array, *, penalty: float | None) -> _Asked:
    """Validation as if some of the known items had come after training, which are cold, too."""
    cold = _cold_items(job.dataset, simulated=True, seed=job.config.seed)
    users = np.flatnonzero(np.diff(test.indptr))
    vectors = embed(model, job.dataset.forgetting(cold), only_users=users)
    vectors["item"][cold] = embed_as_new(model, job.dataset, cold, penalty=penalty)
    is_cold = sparse.diags_array(np.bincount(cold, minlength=test.shape[1]).astype(np.float32))
    positives = job.dataset.interactions.of(users)
    hidden = sparse.csr_array(positives @ is_cold)
    hidden.eliminate_zeros()
    seen = _without(job.left_out.seen.astype(np.float32), hidden)
    return _Asked(
        vectors,
        cold,
        known=_without(positives, hidden),
        wanted=sparse.csr_array(test + hidden),
        left_out=LeftOut(seen, job.left_out.not_yet),
    )


def _without(some: sparse.csr_array, others: sparse.csr_array) -> sparse.csr_array:
    """The entries of a matrix where another of its shape has none."""
    left = sparse.csr_array(some - some.multiply(others.astype(np.bool_)))
    left.eliminate_zeros()
    return left


def _best_step(found: Mapping[float, tuple[float, float]], *, kept: float) -> float:
    """The step with the best metric over all items of those that leave warm items enough."""
    least = kept * found[0.0][1]
    allowed = [step for step, (_, warm) in found.items() if warm >= least]
    return max(allowed, key=lambda step: (found[step][0], -abs(step)))


def weight_for_share(model: TwoTower, job: Fit, *, share: float) -> float:
    """Find the weight with which cold items take a share of users' first places.

    Cold are the items whose ids are unknown and, where they are too few to fill the places, a
    random tenth of the others without their ids. The places are those of users of the training
    part, so that no validation part is needed.
    """
    dataset, k = job.dataset, _places(job)
    is_enough = np.count_nonzero(~dataset.knows_item) >= k
    cold = _cold_items(dataset, simulated=not is_enough, seed=job.config.seed)
    vectors = _vectors_without_ids(model, dataset, cold)
    users = _some_users(dataset.interactions.user_counts, seed=job.config.seed)
    known = left_out(dataset.interactions, users, what=job.config.evaluation.leave_out)
    is_cold = np.zeros(len(dataset.item_ids), dtype=np.bool_)
    is_cold[cold] = True
    gaps = []
    for some in np.array_split(users, 1 + len(users) * len(is_cold) // LARGEST_BLOCK):
        scores = match_scorer(vectors)(some)
        scores[known[some].nonzero()] = -np.inf
        gaps.append(_gaps(scores, is_cold, k=k))
    ordered = np.sort(np.concatenate(gaps), axis=None)
    finite = ordered[np.isfinite(ordered)]
    if not finite.size:
        return 0.0
    found = ordered[max(int(np.ceil(share * ordered.size)) - 1, 0)]
    return float(np.clip(found, finite[0], finite[-1]))


def _places(job: Fit) -> int:
    """The K of the metric that decides."""
    return int(job.config.evaluation.metric.partition("@")[2])


def _cold_items(dataset: Dataset, *, simulated: bool, seed: int) -> NDArray[np.int64]:
    """The rows of the items that stand for those without an id."""
    is_cold = ~dataset.knows_item
    if simulated:
        is_cold |= np.random.default_rng(seed).random(len(is_cold)) < SIMULATED
    return np.flatnonzero(is_cold)


def _vectors_without_ids(
    model: TwoTower,
    dataset: Dataset,
    items: NDArray[np.int64],
    *,
    only_users: NDArray[np.int64] | None = None,
) -> Vectors:
    """The vectors of users and items, of some items as if their ids were unknown."""
    vectors = embed(model, dataset, only_users=only_users)
    vectors["item"][items] = embed_without_ids(model, dataset, items)
    return vectors


def _some_users(counts: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """At most `USERS` of those with a positive count, ascending."""
    users = np.flatnonzero(counts)
    if len(users) > USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, USERS, replace=False))
    return users


def score_spread(users: NDArray[np.float32], items: NDArray[np.float32]) -> float:
    """The standard deviation of the inner products of all users [n, k] with all items [m, k]."""
    user, item = users.astype(np.float64), items.astype(np.float64)
    mean_square = np.sum((user.T @ user) * (item.T @ item)) / (len(user) * len(item))
    mean = user.mean(axis=0) @ item.mean(axis=0)
    return float(np.sqrt(max(mean_square - mean**2, 0.0)))


def _gaps(
    scores: NDArray[np.float32], is_cold: NDArray[np.bool_], *, k: int
) -> NDArray[np.float32]:
    """What must be added to cold items' scores [n, n_items] for a jth of them among the first k.

    The jth best cold item comes in when it is as good as the warm item at place k + 1 - j.

    Returns:
        [n, k]; infinite where there is no jth cold item, minus infinity where it is in anyway.
    """
    _, cold = best_columns(np.where(is_cold, scores, -np.inf), k)
    _, warm = best_columns(np.where(is_cold, -np.inf, scores), k)
    is_there = np.isfinite(cold)
    return np.where(is_there, warm[:, ::-1] - np.where(is_there, cold, 0.0), np.inf)
