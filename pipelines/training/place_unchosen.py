"""Place the items that nobody has chosen where validation says that they belong.

An item that has been in the table all along, and that nobody has chosen, is not like one that comes
later: it has had its chance. Where their ids have rows (`min_count = 0`), such items have the
scores of their features times a scale and with a term, which leave their order among themselves as
it is. In a split by time, the validation part shows how often they are chosen from then on: the
scale and the term bring their mean score to that of items that are chosen as often. A split at
random cannot show it: there, an item without an interaction has none by chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pipelines.progress import Reporter
from pipelines.training.decided import Unchosen
from pipelines.training.embed import embed, embed_items, embed_without_ids
from pipelines.training.fit import Fit, Fitted
from pipelines.training.initialize import set_rows

SMALLEST = 1e-3
"""The smallest scale, which still keeps the order of these items."""


def measure_unchosen(
    fitted: Fitted, job: Fit, *, term: NDArray[np.float32] | float = 0.0
) -> Unchosen | None:
    """Measure where the items that nobody has chosen belong.

    The rate at which validation chooses an item is fitted to the mean scores of the items that
    training has chosen, as a function that does not fall. The others belong at the score at which
    this function has their rate. The scale takes them there, as far as it may, without what trends
    add to scores; the term does the rest.

    Source: B. Zadrozny, C. Elkan, Transforming classifier scores into accurate multiclass
    probability estimates, KDD 2002, for isotonic regression as a calibration.

    Args:
        fitted: the model, calibrated.
        job: its data, with a validation part that comes after the training part.
        term: what trends add to the score of each item, [n_items].

    Returns:
        None where every item has an interaction, but for those that are not there yet when
        validation asks; or where there is no validation part.
    """
    items, _ = job.dataset.unchosen
    users = job.asked
    if job.not_yet is not None:
        items = items[job.not_yet.by_the_last(users)[items]]
    if job.validation is None or not len(items):
        return None
    vectors = embed(fitted.model, job.dataset, only_users=users)
    vectors["item"][items] = embed_without_ids(fitted.model, job.dataset, items)
    scores = vectors["item"] @ vectors["user"][users].mean(axis=0)
    chosen = np.bincount(job.validation.indices, minlength=len(scores))
    known = np.flatnonzero(job.dataset.interactions.item_counts)
    mean, rate = float(scores[items].mean()), float(chosen[items].mean())
    wanted = _score_at(scores[known], chosen[known], rate=rate)
    scale = float(np.clip(wanted / mean, SMALLEST, 1.0)) if mean > 0.0 else 1.0
    wanted = _score_at((scores + term)[known], chosen[known], rate=rate)
    return Unchosen(scale=scale, term=wanted - scale * mean)


def place_unchosen(
    fitted: Fitted, job: Fit, reporter: Reporter, *, placed: Unchosen | None
) -> Fitted:
    """Set the ids of the items that nobody has chosen so that their scores are as measured.

    The model is changed in place, and kept in a checkpoint of its own. Where nothing was measured,
    these items are as those of unknown ids. Nothing is done where there are none whose ids have
    rows.

    Args:
        fitted: the model, calibrated.
        job: its data.
        reporter: is told where they are.
        placed: what `measure_unchosen` found.
    """
    items, rows = job.dataset.unchosen
    if not len(items):
        return fitted
    model, bags = fitted.model, job.dataset.item_bags[items]
    dense, features = job.dataset.dense("item").take(items), fitted.model.features
    wanted = embed_without_ids(model, job.dataset, items)
    if placed is not None:
        wanted *= np.float32(placed.scale)
        wanted[:, 0] += np.float32(placed.term)
        reporter.say(
            f"  {len(items):,} items that nobody has chosen: the scores of their features times "
            f"{placed.scale:.3g} {placed.term:+.3g}, as often as validation chooses such items"
        )
    set_rows(features.w, np.zeros(len(rows), dtype=np.float32), rows=rows)
    set_rows(features.v, np.zeros((len(rows), wanted.shape[1] - 1), dtype=np.float32), rows=rows)
    set_rows(features.v, (wanted - embed_items(model, bags, dense=dense))[:, 1:], rows=rows)
    set_rows(features.w, (wanted - embed_items(model, bags, dense=dense))[:, 0], rows=rows)
    return fitted.kept(unchosen=placed)


def _score_at(scores: NDArray[np.float32], chosen: NDArray[np.int64], *, rate: float) -> float:
    """The lowest of some items' scores [n] at which they are chosen at least at a rate."""
    order = np.argsort(scores)
    rates = isotonic_regression(chosen[order].astype(np.float64)).x
    place = min(int(np.searchsorted(rates, rate)), len(order) - 1)
    return float(scores[order][place])
