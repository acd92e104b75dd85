"""Finish a fit as validation decides: how far back to the start, and what counts beside histories.

Where some epoch is better than the start, it goes a small share of the way back. Where none is,
training has still learned something, which few validation users may not show: a quarter of the way
from the start to the last epoch is taken, or half where the start is an earlier version, unless the
start is clearly better once each of the two has what counts beside its histories: by more than one
standard error of the paired difference of recall + NDCG, of the users who decide about that.

Source: for weights between two models where no data can tell, M. Wortsman et al., Robust
Fine-Tuning of Zero-Shot Models, CVPR 2022.
"""

from __future__ import annotations

from pipelines.data.store_blocks import StoredInteractions
from pipelines.evaluation.race import standard_error
from pipelines.progress import Reporter
from pipelines.training.choose_balance import BesideHistories, apply_balance, choose_balance
from pipelines.training.decided import ChosenTrend
from pipelines.training.fit import Fit, Fitted
from pipelines.training.mix_with_start import back_to_start, mix_with_start, part_way
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
        found, beside = placed(part_way(fitted, job))
        if _is_better(of_start, of_part=beside, way=1.0 - found.start_share, reporter=reporter):
            fitted, beside = back_to_start(fitted, job), of_start
            found = place_features(fitted, job, reporter, penalty=start.feature_penalty)
    if beside is None:
        return found, None
    return apply_balance(found, job, reporter, balance=beside.balance), beside.trend


def _is_better(
    of_start: BesideHistories | None,
    *,
    of_part: BesideHistories | None,
    way: float,
    reporter: Reporter,
) -> bool:
    """Whether the start ranks clearly better than a part of the way to the last epoch."""
    if of_start is None or of_part is None:
        return True
    lead = of_start.figures - of_part.figures
    reporter.say(
        f"  recall + NDCG with what counts beside histories: {of_start.figures.mean():.4f} at the "
        f"start, {of_part.figures.mean():.4f} {way:.0%} of the way to the last epoch, the "
        f"difference +- {standard_error(lead):.4f}"
    )
    return bool(lead.mean() > standard_error(lead))
