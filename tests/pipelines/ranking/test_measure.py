"""The figures of rankers, against values counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.ranking.measure import auc, calibration, grouped_auc, list_ndcg, log_loss


def test_log_loss_is_that_of_probabilities() -> None:
    p = np.array([0.9, 0.2, 0.5])
    logits = np.log(p / (1 - p)).astype(np.float32)
    expected = -np.mean([np.log(0.9), np.log(0.8), np.log(0.5)])
    assert log_loss(np.array([1.0, 0.0, 1.0]), logits) == pytest.approx(expected, rel=1e-5)


def test_log_loss_of_far_logits_is_finite() -> None:
    assert log_loss(np.array([0.0]), np.array([500.0], np.float32)) == pytest.approx(500.0)


def test_auc_counts_pairs_in_order_and_ties_by_half() -> None:
    labels, scores = np.array([1.0, 1, 0, 0]), np.array([3.0, 1, 1, 0], np.float32)
    assert auc(labels, scores) == pytest.approx(3.5 / 4)


def test_grouped_auc_leaves_out_groups_of_one_kind() -> None:
    labels = np.array([1.0, 0, 0, 1, 1, 1])
    scores = np.array([3.0, 1, 2, 0, 5, 5], np.float32)
    groups = np.array([0, 0, 1, 1, 2, 2])
    assert grouped_auc(labels, scores, groups) == pytest.approx(0.5)  # 1 and 0, of two each
    assert grouped_auc(np.ones(2), scores[:2], groups[:2]) is None


def test_calibration_sees_scores_that_are_too_high() -> None:
    labels = np.tile([1.0, 0.0, 0.0, 0.0], 50)
    fair, high = (np.full(200, np.log(p / (1 - p)), np.float32) for p in (0.25, 0.5))
    assert calibration(labels, fair)["ratio"] == pytest.approx(1.0)
    found = calibration(labels, high)
    assert found["ratio"] == pytest.approx(2.0)
    assert found["error"] == pytest.approx(0.25, abs=0.02)


def test_the_ndcg_of_lists_counts_what_was_not_found() -> None:
    labels = np.array([0.0, 1, 1, 0, 0])
    scores = np.array([0.5, 0.1, 0.9, 0.2, 0.3], np.float32)
    groups = np.array([0, 0, 0, 1, 1])
    found = list_ndcg(labels, scores, groups, np.array([3, 1]), k=2)
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(found, [1 / ideal, 0.0])
