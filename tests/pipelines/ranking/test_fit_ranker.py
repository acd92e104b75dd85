"""When a fit of a ranker slows down."""

from __future__ import annotations

import pytest

from pipelines.rank_config import RankConfig
from pipelines.ranking.fit_ranker import State, n_stalls


@pytest.mark.parametrize(
    ("auc", "expected"),
    [([], 0), ([0.7], 0), ([0.7, 0.8, 0.8], 1), ([0.7, 0.6, 0.65, 0.9, 0.8], 3)],
)
def test_an_epoch_that_is_no_better_than_the_best_is_a_stall(
    auc: list[float], expected: int
) -> None:
    records = [{"auc": one, "log_loss": -one} for one in auc]
    state = State(records=records)
    assert n_stalls(state, RankConfig()) == expected
    assert n_stalls(state, RankConfig(metric="log_loss")) == expected
