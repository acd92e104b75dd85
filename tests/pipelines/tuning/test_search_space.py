from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipelines.config import RunConfig
from pipelines.tuning.search_space import (
    HARDEST,
    SPACE,
    Dimension,
    choose_dimensions,
    distributions,
    nearest,
    rounded,
    settings_of,
)
from towers.errors import ConfigError
from towers.typed import parse

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

RATE, FOLDS, L2 = "training.learning_rate", "training.folds", "training.l2"
POWER, DROPOUT = "user.history.popularity_power", "training.history_dropout"
DIM = "model.embedding_dim"
NAMES = [dimension.name for dimension in SPACE]


def plain(**tables: Any) -> RunConfig:
    """A configuration that says little but `tables`."""
    return parse(RunConfig, {"data": {"interactions": {}}} | tables, where="plain")


def names(config: RunConfig, **asked: Any) -> list[str]:
    return [dimension.name for dimension in choose_dimensions(config, **asked)]


def space(config: RunConfig, *, hardest: int = 100) -> dict[str, Any]:
    dimensions = choose_dimensions(config, dims=True)
    start = settings_of(config, dimensions, hardest=hardest)
    return dict(distributions(dimensions, start, hardest=hardest))


def test_every_dimension_is_a_setting_with_a_range_and_a_reason() -> None:
    config = plain()
    start = settings_of(config, SPACE, hardest=100)
    assert list(start) == NAMES
    for dimension in SPACE:
        text = dimension.describe()
        assert text.startswith(f"{dimension.name}: ")
        assert text.endswith(f"; {dimension.why}")
    assert SPACE[NAMES.index(RATE)].describe().startswith(f"{RATE}: 0.0002 to 0.003 (log); ")
    assert ": 0.5 to 2 times the default (log); " in SPACE[NAMES.index(HARDEST)].describe()
    assert ": one of 3, 5, 10; " in SPACE[NAMES.index(FOLDS)].describe()


def test_all_is_searched_but_what_has_to_be_asked_for() -> None:
    assert names(plain()) == [name for name in NAMES if name not in {DIM, POWER}]
    assert names(plain(), dims=True) == [name for name in NAMES if name != POWER]
    assert names(plain(), only=[POWER]) == [POWER]
    assert names(plain(), only=[DIM, L2]) == [L2, DIM]
    assert names(plain(), only=[L2], dims=True) == [L2, DIM]
    assert names(plain(), only=[L2]) == [L2]


def test_users_without_a_history_have_nothing_of_it_searched(tiny: Tiny) -> None:
    config = tiny.config(user={"features": [{"kind": "categorical", "column": "city"}]})
    assert names(config, dims=True) == [name for name in NAMES if name not in {POWER, DROPOUT}]
    with pytest.raises(ConfigError, match=rf"--only.*received {POWER}; choose from {RATE}, "):
        choose_dimensions(config, only=[POWER])


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        choose_dimensions(plain(), only=["training.rate", L2])
    assert "received training.rate; choose from" in str(refused.value)
    assert all(name in str(refused.value) for name in NAMES)


def test_the_search_starts_from_the_configuration(tiny: Tiny) -> None:
    config = tiny.config(training={"learning_rate": 0.05})
    start = settings_of(config, SPACE, hardest=100)
    assert (start[RATE], start[POWER], start[HARDEST]) == (0.05, 0.4, 8)
    assert settings_of(plain(), SPACE, hardest=100)[HARDEST] == 100  # left open
    assert settings_of(plain(), SPACE, hardest=100)[POWER] == 0.4  # of the history by default


def test_the_hardest_are_searched_around_what_the_data_ask_for() -> None:
    assert space(plain(), hardest=101)[HARDEST] == IntDistribution(50, 202, log=True)
    assert space(plain(), hardest=1)[HARDEST] == IntDistribution(1, 2, log=True)


def test_ranges_are_widened_to_hold_the_configuration() -> None:
    training = {"learning_rate": 0.01, "folds": 4, "l2": 1e-6, "negatives": {"hardest": 500}}
    found = space(plain(training=training, model={"embedding_dim": 96}))
    assert found[RATE] == FloatDistribution(2e-4, 0.01, log=True)
    assert found[L2] == FloatDistribution(1e-6, 0.1, log=True)
    assert found[FOLDS] == CategoricalDistribution((3, 5, 10, 4))
    assert found[DIM] == CategoricalDistribution((64, 128, 256, 96))
    assert found[HARDEST] == IntDistribution(50, 500, log=True)


def test_a_setting_that_is_left_open_stays_among_the_choices() -> None:
    dimension = Dimension("training.batch_size", CategoricalDistribution((64, 512)), why="because")
    start = settings_of(plain(), [dimension], hardest=100)
    assert start == {dimension.name: None}
    found = distributions([dimension], start, hardest=100)[dimension.name]
    assert found == CategoricalDistribution((64, 512, None))
    assert nearest(None, found) is None


def test_zero_on_a_log_scale_is_represented_by_the_end_of_the_range() -> None:
    config = plain(training={"l2": 0.0})
    found = space(config)[L2]
    assert found == FloatDistribution(1e-5, 0.1, log=True)
    assert nearest(0.0, found) == 1e-5
    assert nearest(0.01, found) == 0.01
    assert nearest(5, CategoricalDistribution((3, 5))) == 5


@given(st.floats(1e-6, 10.0))
def test_rounding_changes_little_and_only_once(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=5.1e-3)
    assert rounded(rounded(value)) == rounded(value)
    assert len(f"{rounded(value):e}".split("e")[0].rstrip("0").replace(".", "")) <= 3


def test_whole_numbers_are_not_rounded() -> None:
    assert rounded(12345) == 12345
