"""Finish a fit as validation decides: how far back to the start, and what counts beside histories.

Where some epoch is better than the start, it goes a small share of the way back. Where none is,
training has still learned something, which few validation users may not show: half of the way
between the start and the last epoch is tried beside the start itself. Each of the two gets what
counts beside its histories, and the one that then ranks better is kept, by the sum of recall and
NDCG of the users who decide about that.

Source: half of the way is what M. Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR
2022, recommend where no data can tell.
"""

from __future__ import annotations

from pipelines.data.store_blocks import StoredInteractions
from pipelines.evaluation.race import standard_error
from pipelines.progress import Reporter
from pipelines.training.choose_balance import BesideHistories, apply_balance, choose_balance
from pipelines.training.decided import ChosenTrend
from pipelines.training.fit import Fit, Fitted
from pipelines.training.mix_with_start import back_to_start, half_way, mix_with_start
from pipelines.training.place_features import measure_features, place_features


def finish(
    fitted: Fitted, job: Fit, reporter: Reporter, *, stored: StoredInteractions | None
) -> tuple[Fitted, ChosenTrend | None]:
    """Move the weights towards the start, and give what counts beside histories its weight.

    Args:
        fitted: the model as `job` has trained it; changed in place.
        job: its data and settings, with a validation part.
        reporter: is told what is chosen.
        stored: its interactions, with times, where items have a trend.

    Returns:
        The model in a checkpoint of its own, and the trend that is best for it, not added yet.
    """

    def placed(one: Fitted) -> tuple[Fitted, BesideHistories | None]:
        """With its features, and what would count beside its histories."""
        penalty = measure_features(one, job, reporter)
        one = place_features(one, job, reporter, penalty=penalty)
        return one, choose_balance(one, job, reporter, stored=stored)

    has_trained = any(record["epoch"] for record in fitted.records)
    if fitted.best_epoch or not has_trained:
        found, beside = placed(mix_with_start(fitted, job, reporter))
    else:
        start, of_start = placed(fitted)
        found, beside = placed(half_way(fitted, job))
        if _is_better(of_start, of_half_way=beside, reporter=reporter):
            fitted, beside = back_to_start(fitted, job), of_start
            found = place_features(fitted, job, reporter, penalty=start.feature_penalty)
    if beside is None:
        return found, None
    return apply_balance(found, job, reporter, balance=beside.balance), beside.trend


def _is_better(
    of_start: BesideHistories | None, *, of_half_way: BesideHistories | None, reporter: Reporter
) -> bool:
    """Whether the start ranks better than half of the way."""
    if of_start is None or of_half_way is None:
        return True
    lead = of_start.figures - of_half_way.figures
    reporter.say(
        f"  recall + NDCG with what counts beside histories: {of_start.figures.mean():.4f} at the "
        f"start, {of_half_way.figures.mean():.4f} half of the way to the last epoch, the "
        f"difference +- {standard_error(lead):.4f}"
    )
    return bool(lead.mean() > 0.0)
