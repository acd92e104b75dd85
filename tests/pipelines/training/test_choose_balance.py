"""What counts beside histories is chosen on validation, and it stays a factorization machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.progress import Reporter
from pipelines.training.choose_balance import (
    apart,
    apply_balance,
    around,
    best_trend,
    choose_balance,
    said_by_features,
)
from pipelines.training.decided import Balance
from pipelines.training.embed import embed
from pipelines.training.fit import Fit
from pipelines.training.initialize import mean_user
from tests.pipelines.training.starts import best_of, untrained


def test_scores_get_what_features_and_the_mean_user_say(popular_job: Fit, tmp_path: Path) -> None:
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    before, features = embed(fitted.model, popular_job.dataset), fitted.model.features
    said = said_by_features(features, popular_job.dataset)
    assert np.abs(said).max() > 0.01
    mean = mean_user(features, popular_job.dataset)[0]
    items = before["item"]
    expected = before["user"] @ items.T + (said + 0.5 * mean) @ items[:, 1:].T
    balance = Balance(features=2.0, mean_user=0.5)
    moved = apply_balance(fitted, popular_job, Reporter(), balance=balance)
    after = embed(moved.model, popular_job.dataset)
    np.testing.assert_allclose(after["user"] @ after["item"].T, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["item"][:, 1:], items[:, 1:], atol=1e-6)
    assert moved.balance == balance


@pytest.mark.parametrize("balance", [None, Balance()])
def test_a_balance_as_trained_changes_nothing(
    popular_job: Fit, tmp_path: Path, balance: Balance | None
) -> None:
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    assert apply_balance(fitted, popular_job, Reporter(), balance=balance) is fitted


def test_validation_decides_what_counts_beside_histories(popular_job: Fit, tmp_path: Path) -> None:
    """As trained, where users choose what their own vectors say; more, where they follow others."""
    fitted = untrained(popular_job.dataset, popular_job.config, tmp_path)
    vectors = embed(fitted.model, popular_job.dataset)
    own = vectors["user"] @ vectors["item"].T
    said = said_by_features(fitted.model.features, popular_job.dataset)
    mean = mean_user(fitted.model.features, popular_job.dataset)[0]

    def chosen(scores: NDArray[np.float32]) -> Balance:
        job = best_of(scores, popular_job)
        found = choose_balance(fitted, job, Reporter(), stored=None)
        assert found is not None
        return found.balance

    assert chosen(own) == Balance()
    assert chosen(own + 4.0 * (vectors["item"][:, 1:] @ mean)).mean_user == 1.0
    assert chosen(own + 4.0 * (said @ vectors["item"][:, 1:].T)).features == 2.0
    without = dataclasses.replace(popular_job, validation=None)
    assert choose_balance(fitted, without, Reporter(), stored=None) is None


def test_windows_are_told_apart_by_their_lengths() -> None:
    assert apart([96.7, 51.6, 9.8, 3.0, 2.4, 1.5, 0.1]) == [96.7, 9.8, 3.0, 1.5, 0.1]
    assert apart([]) == []


def test_one_lucky_trial_decides_nothing() -> None:
    """What is good with all balances and next to others is chosen; not what is best alone."""
    measured = np.full((4, 3, 5, 40), 0.1)  # balances, windows, weights, users
    measured[:, 2, 2:5] = 0.2
    measured[1] += 0.01
    measured[0, 0, 0] = 0.3
    window, weight = best_trend(measured)
    assert (window, weight) == (2, 2)
    near = around(measured, window, weight)
    mean = (4 * 0.1 + 2 * 0.2) / 6  # of two windows and three weights
    np.testing.assert_allclose(near[:2, 0], [mean, mean + 0.01])
