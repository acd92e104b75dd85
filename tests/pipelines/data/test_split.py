from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import SplitConfig
from pipelines.data.interactions import ReadReport, Tables
from pipelines.data.split import split_interactions
from towers.errors import ConfigError, DataError

FRACTIONS = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9])
N_OF_USER = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def tables(interactions: pd.DataFrame, test: pd.DataFrame | None = None) -> Tables:
    empty = pd.DataFrame()
    report = ReadReport(tables=())
    return Tables(interactions=interactions, test=test, users=empty, items=empty, report=report)


def interactions(n_of_user: list[int], *, timed: bool = False) -> pd.DataFrame:
    rows = [(f"u{u}", item) for u, n in enumerate(n_of_user) for item in range(n)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    return frame.assign(timestamp=range(len(frame))) if timed else frame


def pairs(frame: pd.DataFrame) -> list[Any]:
    return list(zip(frame["user_id"], frame["item_id"], strict=True))


@given(n_of_user=N_OF_USER, test=FRACTIONS, validation=FRACTIONS, timed=st.booleans())
def test_every_interaction_is_in_one_part(
    n_of_user: list[int], test: float, validation: float, timed: bool
) -> None:
    rows = interactions(n_of_user, timed=timed)
    config = SplitConfig(test_fraction=test, validation_fraction=validation)
    try:
        split = split_interactions(tables(rows), config=config, seed=0)
    except DataError:
        assert timed  # at random, every user keeps one
        return
    parts = [split.train, split.validation, split.test]
    assert sorted(pair for part in parts for pair in pairs(part)) == sorted(pairs(rows))
    for part in parts:
        assert list(part) == list(rows)
        assert part.index.tolist() == list(range(len(part)))
        in_order = [pair for pair in pairs(rows) if pair in set(pairs(part))]
        assert pairs(part) == in_order
    if test == 0.0:
        assert len(split.test) == 0
    if validation == 0.0:
        assert len(split.validation) == 0


def test_time_holds_out_the_latest() -> None:
    rows = interactions([40, 60], timed=True)
    split = split_interactions(tables(rows), config=SplitConfig(), seed=0)
    assert split.train["timestamp"].tolist() == list(range(72))
    assert split.validation["timestamp"].tolist() == list(range(72, 80))
    assert split.test["timestamp"].tolist() == list(range(80, 100))


@given(n_of_user=N_OF_USER, test=FRACTIONS, validation=FRACTIONS)
def test_random_takes_the_share_of_each_user_and_leaves_it_one(
    n_of_user: list[int], test: float, validation: float
) -> None:
    config = SplitConfig(by="random", test_fraction=test, validation_fraction=validation)
    split = split_interactions(tables(interactions(n_of_user, timed=True)), config=config, seed=1)
    for user, n in enumerate(n_of_user):
        n_test = min(round(n * test), n - 1)
        n_validation = min(round((n - n_test) * validation), n - n_test - 1)
        parts = (split.train, split.validation, split.test)
        counts = [int((part["user_id"] == f"u{user}").sum()) for part in parts]
        assert counts == [n - n_test - n_validation, n_validation, n_test]


def test_random_depends_on_the_seed_alone() -> None:
    rows = interactions([50, 50])

    def test_part(seed: int) -> list[Any]:
        return pairs(split_interactions(tables(rows), config=SplitConfig(), seed=seed).test)

    assert test_part(3) == test_part(3)
    assert test_part(3) != test_part(4)
    assert {item for _, item in test_part(3)} != set(range(10))


@given(n_of_user=N_OF_USER, test=FRACTIONS, validation=FRACTIONS, one=st.integers(0, 5))
def test_random_looks_at_one_user_at_a_time(
    n_of_user: list[int], test: float, validation: float, one: int
) -> None:
    rows = interactions(n_of_user)
    config = SplitConfig(test_fraction=test, validation_fraction=validation)
    whole = split_interactions(tables(rows), config=config, seed=2)
    user = f"u{one % len(n_of_user)}"
    alone = rows[rows["user_id"] == user]
    part = split_interactions(tables(alone), config=config, seed=2)
    for name in ("train", "validation", "test"):
        expected = [pair for pair in pairs(getattr(whole, name)) if pair[0] == user]
        assert pairs(getattr(part, name)) == expected


def test_a_test_table_takes_the_place_of_the_fraction() -> None:
    test = interactions([2])
    split = split_interactions(
        tables(interactions([10], timed=True), test), config=SplitConfig(), seed=0
    )
    assert split.test is test
    assert len(split.train) == 9
    assert len(split.validation) == 1


def test_time_needs_timestamps() -> None:
    with pytest.raises(ConfigError, match=r"split.by.*data.interactions.timestamp"):
        split_interactions(tables(interactions([9])), config=SplitConfig(by="time"), seed=0)


def test_nothing_to_train_on_is_refused() -> None:
    config = SplitConfig(test_fraction=0.9)
    with pytest.raises(DataError, match=r"expected training interactions.*test_fraction"):
        split_interactions(tables(interactions([2], timed=True)), config=config, seed=0)
