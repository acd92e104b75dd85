"""The rows that the Frappe benchmark trains on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from benchmarks.frappe import NEGATIVES, draw_training


def test_training_rows_leave_out_what_is_held_out_and_negatives_what_was_used() -> None:
    random = np.random.default_rng(0)
    log = np.stack([random.integers(5, size=80), random.integers(5, 30, 80)], axis=1)
    log = np.concatenate([log, log[:3]])  # some rows come twice
    held_out = log[[0, 10, 20]]
    rows, labels = draw_training(log, held_out, seed=1)
    used = set(map(tuple, log.tolist()))
    expected = Counter(map(tuple, log.tolist())) - Counter(map(tuple, held_out.tolist()))
    assert Counter(map(tuple, rows[labels > 0].tolist())) == expected
    negatives = rows[labels == 0]
    assert len(negatives) == NEGATIVES * expected.total()
    assert not used & set(map(tuple, negatives.tolist()))
    assert np.array_equal(np.repeat(rows[labels > 0][:, 0], NEGATIVES), negatives[:, 0])
