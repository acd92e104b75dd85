from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.engines import Plan
from pipelines.data.prepare import prepare
from pipelines.data.recent import FEWEST, FEWEST_OF_ITEM, count_recent, trend_values, window_lengths

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=1, max_size=8)


@pytest.mark.parametrize("rows", [None, 100])
def test_windows_and_counts_are_those_of_the_rows(
    tiny: Tiny, tmp_path: Path, rows: int | None
) -> None:
    plan = Plan() if rows is None else Plan(engine="disk", rows=rows)
    prepared = prepare(tiny.config(), tmp_path / "prepared", frames=tiny.tables, plan=plan)
    stored, frame = prepared.stored("train"), prepared.frame("train")
    assert (stored.n_blocks > 1) == (rows is not None)
    lengths = window_lengths(stored)
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) >= 3
    until, counts = count_recent(stored, lengths)
    times = frame["timestamp"]
    assert until == times.max()
    assert (counts.sum(axis=1) >= 0.7 * FEWEST).all()  # blocks are samples
    for length, found in zip(lengths, counts, strict=True):
        latest = frame[times > times.max() - length]
        expected = latest["item_id"].value_counts()
        assert found.tolist() == [expected.get(id, 0) for id in prepared.items["item_id"]]


def test_interactions_without_times_have_no_windows(tiny: Tiny, tmp_path: Path) -> None:
    interactions = dataclasses.replace(tiny.config().data.interactions, timestamp=None)
    config = tiny.config()
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, interactions=interactions)
    )
    prepared = prepare(config, tmp_path / "prepared", frames=tiny.tables)
    assert window_lengths(prepared.stored("train")) == []


@given(counts=COUNTS)
def test_a_trend_compares_with_the_share_of_all_choices(counts: list[tuple[int, int]]) -> None:
    recent, earlier = np.array(counts, dtype=np.int64).T
    total = recent + earlier
    found = trend_values(recent, total)
    share = total / max(total.sum(), 1)
    expected = np.log((recent + 1) / (share * recent.sum() + 1))
    is_rare = total < FEWEST_OF_ITEM
    assert found[~is_rare] == pytest.approx(expected[~is_rare], abs=1e-5)
    assert not found[is_rare].any()  # hardly anything is known of these


def test_an_item_that_came_after_training_has_a_trend_once_it_is_chosen() -> None:
    recent, total = np.array([FEWEST_OF_ITEM, 1, 10]), np.array([0, 0, 100])
    assert (trend_values(recent, total) > 0.0).tolist() == [True, False, False]
