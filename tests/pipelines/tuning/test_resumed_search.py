"""A search that ended early, whatever ended it, goes on where it was."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from pipelines.config import load_config
from pipelines.job_folder import JobFolder
from pipelines.tuning import tune
from pipelines.tuning.search_space import choose_dimensions
from tests.pipelines.tuning.tune_support import (
    EPOCHS,
    Fits,
    Listening,
    kill_when,
    quick,
    without_time,
)
from towers.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


@pytest.mark.slow
def test_an_interrupted_search_ends_as_if_it_had_not_been(
    fits: Fits, path: Path, tmp_path: Path
) -> None:
    whole = quick(path, tmp_path / "whole", 6)
    trained, fits.fitted = fits.fitted, []
    out, lines = tmp_path / "out", list[str]()
    for stop in (0, 2, 3, 5, 8):
        fits.stop_at = stop
        reporter = Listening()
        with pytest.raises(KeyboardInterrupt):
            quick(path, out, 6, reporter=reporter)
        lines += reporter.starting("Going on")
    fits.stop_at = -1
    found = quick(path, out, 6)
    assert found == dataclasses.replace(whole, path=out / "best.toml")
    assert fits.fitted == trained  # no epoch was trained twice
    assert lines == [
        "Going on with trial 1, epochs done: 2",
        f"Going on with the search in {out}, trials ended: 1",
        f"Going on with the search in {out}, trials ended: 1",
        "Going on with trial 2, epochs done: 2",
    ]
    for name in ("best.toml", "trials.csv"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.slow
def test_only_the_state_of_the_trial_under_way_is_kept(
    fits: Fits, path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fits.stop_at = 7
    with pytest.raises(KeyboardInterrupt):
        quick(path, out, 4)
    (out / ".fits" / "trial-3-of-other-settings").mkdir()
    fits.stop_at = -1
    quick(path, out, 4)
    assert not any((out / ".fits").iterdir())
    assert len(fits.seen) == len({name.partition("/")[0] for name in fits.seen}) == 4


@pytest.mark.slow
def test_more_trials_can_be_asked_for_later(fits: Fits, path: Path, tmp_path: Path) -> None:
    first = quick(path, tmp_path / "out", 3)
    n_epochs = len(fits.fitted)
    assert quick(path, tmp_path / "out", 2) == first
    assert len(fits.fitted) == n_epochs
    more = quick(path, tmp_path / "out", 5)
    assert more.trials[:3] == first.trials
    assert len(more.trials) == 5


@pytest.mark.slow
def test_time_that_is_up_ends_a_trial_in_the_middle_and_the_next_call_goes_on(
    fits: Fits, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(path, tmp_path / "whole", 3)
    n_epochs, fits.fitted = len(fits.fitted), []
    out, reporter = tmp_path / "out", Listening()
    clock = SimpleNamespace(monotonic=lambda: 60.0 * len(fits.fitted))  # an epoch takes a minute
    monkeypatch.setattr(tune, "time", clock)
    with pytest.raises(TrainingError, match=r"none, for the time was over.*with more --trials or"):
        quick(path, out, 3, minutes=0.5)
    assert len(fits.fitted) == 1
    assert not (out / "best.toml").exists()
    found = quick(path, out, 3, minutes=2.5, reporter=reporter)
    assert len(fits.fitted) == 1 + EPOCHS
    assert reporter.lines[-1] == "The time is over; the same command goes on with trial 2"
    assert found.trials == whole.trials[:1]
    found = quick(path, out, 3, minutes=10.0, reporter=reporter)
    assert "Going on with trial 2, epochs done: 1" in reporter.lines
    assert found.trials == whole.trials
    assert len(fits.fitted) == n_epochs


@pytest.mark.usefixtures("fits")
def test_a_changed_configuration_is_noticed(tiny: Tiny, path: Path, tmp_path: Path) -> None:
    tune.tune(path, tmp_path / "out", trials=1)
    tiny.write(tmp_path / "data", training={"epochs": EPOCHS + 1})
    with pytest.raises(ConfigError, match=r"training\.epochs: begun with 3, received 4"):
        tune.tune(path, tmp_path / "out", trials=1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"epochs": 7}}, ["training.epochs: begun with 3, received 7"]),
        ({"seed": 4}, ["seed: begun with 3, received 4"]),
        (
            {"only": "training.folds"},
            [
                'search.training.l2: begun with "1e-05 to 0.1 (log)", received null',
                'search.training.folds: begun with null, received "one of 3, 5, 10"',
            ],
        ),
        ({"name": "other", "index": {"recall": 0.9}, "export": {"k": 9}}, []),
    ],
)
def test_a_search_is_the_same_where_its_figures_would_be(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], named: list[str]
) -> None:
    def searched(only: str = "training.l2", **changed: Any) -> JobFolder:
        config = load_config(tiny.write(tmp_path / "data", **changed))
        for table in (tmp_path / "data").glob("*.parquet"):
            os.utime(table, ns=(0, 0))
        job = tune.identify_search(config, choose_dimensions(config, only=[only]))
        return JobFolder(path=tmp_path / "out", job=job)

    with searched().claim():
        (tmp_path / "out" / "journal.log").touch()
    assert searched(**changes).differences() == named


@pytest.mark.usefixtures("fits")
def test_data_that_changed_are_noticed(path: Path, tmp_path: Path) -> None:
    quick(path, tmp_path / "out", 1)
    os.utime(path.with_name("users.parquet"), ns=(0, 0))
    with pytest.raises(ConfigError, match=r'users\.parquet: begun with "\d+ bytes, .*modified 0"'):
        quick(path, tmp_path / "out", 1)


@pytest.mark.slow
def test_a_killed_search_ends_as_if_it_had_not_been(path: Path, tmp_path: Path) -> None:
    whole = tune.tune(path, tmp_path / "whole", trials=2)
    out = tmp_path / "out"
    kill_when(lambda: any((out / ".fits").glob("trial-2-*/epoch-2.index")), path, out)
    assert len(list((out / ".fits").iterdir())) == 1
    assert len(pd.read_csv(out / "trials.csv")) == 1
    reporter = Listening()
    found = tune.tune(path, out, trials=2, reporter=reporter)
    assert without_time(found.trials) == without_time(whole.trials)
    [line] = reporter.starting("Going on with trial 2")
    assert line in {f"Going on with trial 2, epochs done: {n}" for n in (1, 2)}
    assert load_config(out / "best.toml") == load_config(tmp_path / "whole" / "best.toml")
    assert not any((out / ".fits").iterdir())
