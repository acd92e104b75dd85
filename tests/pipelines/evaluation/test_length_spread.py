from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.length_spread import length_spread, spread_lines


def test_lengths_are_shown_and_items_far_out_are_warned_of() -> None:
    vectors = np.zeros((101, 3), np.float32)
    vectors[:, 1] = np.arange(1, 102)
    alike = length_spread(vectors)
    assert alike == pytest.approx(
        {"shortest": 1, "1%": 2, "median": 51, "99%": 100, "longest": 101}
    )
    assert spread_lines({"user": alike, "item": alike}) == [
        "lengths of user vectors: shortest 1, 1% 2, median 51, 99% 100, longest 101",
        "lengths of item vectors: shortest 1, 1% 2, median 51, 99% 100, longest 101",
    ]
    vectors[0, 2] = 1020
    *_, warning = spread_lines({"user": alike, "item": length_spread(vectors)})
    assert "the longest item vector is 20 times as long as the median" in warning


def test_no_vectors_have_no_lengths() -> None:
    assert set(length_spread(np.empty((0, 3), np.float32)).values()) == {0.0}
