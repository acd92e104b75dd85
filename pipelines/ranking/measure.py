"""What a ranker's scores are worth: AUC, grouped AUC, log loss, calibration, NDCG of lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pipelines.ranking.examples import Rows

Scores = NDArray[np.float32]
BINS = 10
"""Into how many groups of equal size calibration cuts examples."""


def auc(labels: NDArray[Any], scores: Scores) -> float:
    """The share of pairs of a positive and a negative that are in order; ties count a half.

    There must be some of both.
    """
    is_positive = labels > 0
    n_positive = int(is_positive.sum())
    ranks = rankdata(scores)[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(ranks / (n_positive * (len(labels) - n_positive)))


def log_loss(labels: NDArray[Any], logits: Scores) -> float:
    """The mean binary cross-entropy of logits."""
    signed = np.where(labels > 0, logits, -logits).astype(np.float64)
    return float(np.logaddexp(0.0, -signed).mean())


def grouped_auc(labels: NDArray[Any], scores: Scores, groups: Rows) -> float | None:
    """The mean AUC within groups (users), weighted by their examples; None where none has both.

    Source: H. Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.
    """
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    total, size = 0.0, 0
    for part in np.split(order, cuts):
        if 0 < labels[part].sum() < len(part):
            total += len(part) * auc(labels[part], scores[part])
            size += len(part)
    return total / size if size else None


def calibration(labels: NDArray[Any], logits: Scores) -> dict[str, Any]:
    """How far predicted shares are from those observed.

    Returns:
        `ratio`: the sum of the predictions over that of the labels; `error`: the mean distance of
        the two means in ten groups of equal size by prediction; `bins`: the two means of each.
    """
    p = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    groups = np.array_split(np.argsort(p, kind="stable"), min(BINS, len(p)))
    bins = [(float(p[part].mean()), float(labels[part].mean())) for part in groups]
    shares = np.array([len(part) for part in groups]) / len(p)
    error = float(sum(s * abs(a - b) for s, (a, b) in zip(shares, bins, strict=True)))
    return {"ratio": float(p.sum() / max(labels.sum(), 1)), "error": error, "bins": bins}


def list_ndcg(
    labels: NDArray[Any], scores: Scores, groups: Rows, n_wanted: Rows, *, k: int
) -> NDArray[np.float64]:
    """NDCG@k of each group's list in the order of its scores; [n_groups], in order of the groups.

    Args:
        labels: 1 for what is wanted, [n].
        scores: the order, best first; ties by place.
        groups: the list of each, ascending [n].
        n_wanted: how many each list could have, [n_groups]; ideal is all of them first.
        k: the cut-off.
    """
    _, starts = np.unique(groups, return_index=True)
    order = np.lexsort((-scores.astype(np.float64), groups))
    sizes = np.diff(np.append(starts, len(groups)))
    rank = np.arange(len(groups)) - np.repeat(starts, sizes)
    gains = np.where(rank < k, labels[order] / np.log2(rank + 2.0), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))])
    found = np.add.reduceat(gains, starts)
    return np.asarray(found / ideal[np.minimum(np.maximum(n_wanted, 1), k)])


def measure_scores(labels: NDArray[Any], logits: Scores, users: Rows) -> dict[str, Any]:
    """AUC, grouped AUC, log loss and calibration of logits."""
    return {
        "auc": auc(labels, logits),
        "grouped_auc": grouped_auc(labels, logits, users),
        "log_loss": log_loss(labels, logits),
        "calibration": calibration(labels, logits),
    }
