from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.bootstrap import paired_intervals


def test_the_interval_of_a_mean_is_about_two_standard_errors_to_each_side() -> None:
    values = np.random.default_rng(1).normal([0.3, 0.0], [1.0, 2.0], size=(400, 2))
    low, high = paired_intervals(values)
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean(axis=0) - 1.96 * errors, rel=0.1, abs=0.02)
    assert high == pytest.approx(values.mean(axis=0) + 1.96 * errors, rel=0.1, abs=0.02)


def test_what_is_the_same_for_all_users_has_no_width_and_one_seed_gives_one_interval() -> None:
    values = np.column_stack([np.full(7, 0.25), np.arange(7.0)])
    first, second = paired_intervals(values, seed=3), paired_intervals(values, seed=3)
    assert first[:, 0].tolist() == [0.25, 0.25]
    assert first[0, 1] < 3.0 < first[1, 1]
    assert (first == second).all()
