from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from pipelines.cli import main as cli
from pipelines.config import RunConfig, load_config
from pipelines.data.prepare import Prepared
from pipelines.job_folder import JobFolder
from pipelines.progress import Reporter
from pipelines.training.fit import STATE, Fit, FitState
from pipelines.tuning import fit_trial, tune
from pipelines.tuning.search_space import choose_dimensions
from pipelines.tuning.trials import Searched, Trial, best_of
from tests.pipelines.tuning.tune_support import Listening, kill_when
from towers.errors import ConfigError, DataError, TrainingError
from towers.features.kinds import Features, History

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

METRIC = "recall@5"
EPOCHS = 3
RATE = "training.learning_rate"


class Fits:
    """Stands in for `fit`: gives figures at once, and keeps a fit's state as `fit` does."""

    def __init__(self) -> None:
        self.fitted = list[tuple[RunConfig, int]]()
        """The configuration and the epoch of each epoch that was trained."""
        self.seen = set[str]()
        """The files that were there before an epoch."""
        self.stop_at, self.diverge_at = -1, -1
        """The epoch, counted over all fits, before which to stop as Ctrl-C does, or to diverge."""

    def figure(self, config: RunConfig, epoch: int) -> float:
        history = config.schema.history
        power = 0.0 if history is None else history.power
        return (
            0.5 - abs(math.log10(config.training.learning_rate) + 2) / 10 - power / 9 - 0.1 / epoch
        )

    def __call__(self, job: Fit, reporter: Reporter) -> None:
        job.directory.mkdir(parents=True, exist_ok=True)
        state = FitState.load(job.directory / STATE)
        while state.epochs < job.epochs:
            if len(self.fitted) == self.stop_at:
                raise KeyboardInterrupt
            if len(self.fitted) == self.diverge_at:
                self.diverge_at = -1
                raise TrainingError("epoch 1: not finite; lower training.learning_rate")
            epoch = len(state.records) + 1
            self.fitted.append((job.config, epoch))
            self.seen |= {str(path.relative_to(job.directory.parent)) for path in directories(job)}
            figure = self.figure(job.config, epoch)
            state.records.append({"epoch": float(epoch), "seconds": 0.5, METRIC: figure})
            state.save(job.directory / STATE)
            assert job.on_epoch is not None
            job.on_epoch(state.records[-1])


def directories(job: Fit) -> list[Path]:
    return list(job.directory.parent.iterdir())


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    found = Fits()
    monkeypatch.setattr(fit_trial, "fit", found)
    monkeypatch.setattr(fit_trial, "gc", SimpleNamespace(collect=int))  # it takes half a second
    return found


@pytest.fixture
def path(tiny: Tiny, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "data", training={"epochs": EPOCHS})


def quick(path: Path, out: Path, trials: int, **asked: Any) -> Searched:
    """Search settings that need no other dataset."""
    return tune.tune(path, out, trials=trials, only=[RATE, "training.l2"], **asked)


def best_settings(found: Searched) -> dict[str, Any]:
    return dict(found.ranked[0].settings)


def without_time(trials: tuple[Trial, ...]) -> list[Trial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


def test_the_best_toml_is_the_run_that_was_best(fits: Fits, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    found = tune.tune(path, out, trials=12)
    assert found.metric == METRIC
    assert found.path == out / "best.toml"
    values = {
        fits.figure(config, epoch): config for config, epoch in fits.fitted if epoch == EPOCHS
    }
    best = found.ranked[0]
    assert best.number > 1
    assert best.value == max(values)
    assert load_config(found.path).training == values[max(values)].training
    assert load_config(found.path).training.learning_rate == best.settings[RATE]
    first = found.trials[0]
    text = found.path.read_text(encoding="utf-8")
    assert f"# validation recall@5: {best.value:.4f} (trial {best.number});" in text
    assert f"; as it stood: {first.value:.4f}\n" in text
    states = [trial.state for trial in found.trials]
    complete, pruned = states.count("complete"), states.count("pruned")
    assert complete + pruned == 12
    assert f"# trials: {complete} complete, {pruned} pruned\n" in text
    frame = pd.read_csv(out / "trials.csv")
    assert frame["trial"].tolist() == list(range(1, 13))
    assert frame[RATE].tolist() == [trial.settings[RATE] for trial in found.trials]
    assert frame[METRIC].tolist() == pytest.approx([trial.value for trial in found.trials])


@pytest.fixture
def short(path: Path) -> Path:
    """A configuration that says little more than where its interactions are."""
    text = f"""
        data = {{interactions = {{path = "interactions.parquet"}}}}
        training = {{epochs = {EPOCHS}}}
        evaluation = {{k = [5], metric = "{METRIC}"}}
    """
    file = path.with_name("short.toml")
    file.write_text(text, encoding="utf-8")
    return file


def test_the_first_trial_is_the_configuration_as_it_stands(
    fits: Fits, path: Path, short: Path, tmp_path: Path
) -> None:
    for name, file in {"path": path, "short": short}.items():
        found, stood = tune.tune(file, tmp_path / name, trials=1), load_config(file)
        for config, _ in fits.fitted:
            assert (config.data, config.training) == (stood.data, stood.training)
        assert len(fits.fitted) == EPOCHS
        assert load_config(found.path) == stood
        assert best_settings(found)[RATE] == stood.training.learning_rate
        assert best_settings(found)["training.negatives.hardest"] is not None
        fits.fitted = []


@pytest.mark.slow
def test_the_default_history_is_written_out(fits: Fits, short: Path, tmp_path: Path) -> None:
    found = tune.tune(short, tmp_path / "out", trials=8, only=["user.history.popularity_power"])
    assert found.ranked[0].number > 1
    config = load_config(found.path)
    power = best_settings(found)["user.history.popularity_power"]
    tried = [config.schema.history for config, _ in fits.fitted]
    assert power in [history.popularity_power for history in tried if history]
    assert config.user == Features(features=(History(popularity_power=power),))


def test_only_what_is_asked_for_is_searched(fits: Fits, path: Path, tmp_path: Path) -> None:
    tune.tune(path, tmp_path / "out", trials=6, only=["training.l2"], dims=True)
    stood = load_config(path)
    for config, _ in fits.fitted:
        same = dataclasses.replace(
            config,
            model=stood.model,
            user=stood.user,  # its history has the power that was chosen with the start
            training=dataclasses.replace(config.training, l2=stood.training.l2),
        )
        assert same == stood
    assert len({config.training.l2 for config, _ in fits.fitted}) == 6
    assert {config.model.embedding_dim for config, _ in fits.fitted} <= {8, 64, 128, 256}


def test_the_test_split_is_not_handed_to_the_search(
    fits: Fits, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[dict[str, int]] = []

    class Spy(fit_trial.TrialFits):
        def __init__(self, config: RunConfig, prepared: Prepared, **given: Any) -> None:
            handed.append(prepared.counts)
            super().__init__(config, prepared, **given)

    monkeypatch.setattr(tune, "TrialFits", Spy)
    tune.tune(path, tmp_path / "out", trials=1)
    [counts] = handed
    assert (counts["train"], counts["validation"], counts["test"]) == (510, 57, 0)


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


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(
    fits: Fits, path: Path, tmp_path: Path
) -> None:
    fits.diverge_at = 0
    reporter = Listening()
    found = quick(path, tmp_path / "out", 3, reporter=reporter)
    assert [trial.state for trial in found.trials] == ["failed", "complete", "complete"]
    assert found.trials[0].note == "epoch 1: not finite; lower training.learning_rate"
    assert "as it stood: failed" in found.path.read_text(encoding="utf-8")
    [line] = reporter.starting("trial 1: failed")
    assert found.trials[0].note in line
    assert pd.read_csv(tmp_path / "out" / "trials.csv")["note"][0] == found.trials[0].note


def test_without_a_complete_trial_the_first_failure_is_named(
    fits: Fits, path: Path, tmp_path: Path
) -> None:
    fits.diverge_at = 0
    with pytest.raises(TrainingError, match=r"received none, for all 1 failed, .* epoch 1: not"):
        quick(path, tmp_path / "out", 1)
    assert not (tmp_path / "out" / "best.toml").exists()


def test_every_trial_is_said_in_a_line(fits: Fits, path: Path, tmp_path: Path) -> None:
    reporter = Listening()
    found = quick(path, tmp_path / "out", 5, reporter=reporter)
    lines = reporter.starting("trial ")
    assert len(lines) == 5
    for number, (line, trial) in enumerate(zip(lines, found.trials, strict=True), start=1):
        assert line.startswith(trial.describe(METRIC))
        assert line.endswith(trial.describe_settings())
        best = best_of(found.trials[:number])[0]
        assert f"  best {best.value:.4f} (trial {best.number})  " in line
    assert "training.l2: 1e-05 to 0.1 (log)" in "\n".join(reporter.lines)


@pytest.mark.parametrize(
    ("changes", "asked", "named"),
    [
        ({"split": {"validation_fraction": 0.0}}, {}, r"split\.validation_fraction: .*to 0\.1"),
        ({"split": {"validation_fraction": 1e-9}}, {}, "received none beside 567 for training"),
        ({}, {"only": ["training.rate"]}, r"received training\.rate; choose from"),
        ({}, {"trials": 0}, "--trials: expected at least 1, received 0"),
        ({}, {"minutes": 0.0}, "--minutes: expected more than 0, received 0"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_leaves_nothing_behind(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], asked: dict[str, Any], named: str
) -> None:
    path = tiny.write(tmp_path / "data", **changes)
    with pytest.raises(ConfigError, match=named):
        tune.tune(path, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_faulty_rows_leave_nothing_behind(path: Path, tmp_path: Path) -> None:
    table = path.with_name("interactions.parquet")
    pd.read_parquet(table).assign(item_id=None).to_parquet(table)
    with pytest.raises(DataError):
        tune.tune(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


@pytest.mark.usefixtures("fits")
def test_the_command_searches_and_says_what_to_do_next(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "my tune"
    command = ["fm-recall", "tune", path, "--out", out, "--trials", 14]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--only", RATE, "--only", "training.l2"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code or 0, said.err) == (0, "")
    found = pd.read_csv(out / "trials.csv")
    complete = found[found["state"] == "complete"].sort_values(METRIC, ascending=False)
    assert list(found.columns[6:-1]) == [RATE, "training.l2"]
    for text in (
        "510 train, 57 validation",
        "training.l2: 1e-05 to 0.1 (log)",
        "The best of 14 trials on the validation split",
        f"trial {complete['trial'].iloc[0]}",
        f"fm-recall run '{out / 'best.toml'}'",
    ):
        assert text in said.out
    [row] = [line.split() for line in said.out.splitlines() if line.startswith(f" {RATE}")]
    assert row[-4:] == [f"{rate:g}" for rate in [*complete[RATE][:3], found[RATE][0]]]


@pytest.mark.slow
def test_models_are_fitted_with_the_settings_of_their_trials(path: Path, tmp_path: Path) -> None:
    """With the real `fit`: a figure follows from the settings, and logs are kept."""
    only = ["user.history.popularity_power", RATE]  # the first needs another dataset
    found = tune.tune(path, tmp_path / "out", trials=2, only=only)
    first, second = found.trials
    assert len(first.curve) == EPOCHS
    assert first.curve != second.curve
    assert all(0.0 < figure < 1.0 for figure in (*first.curve, *second.curve))
    for number in (1, 2):
        assert any((tmp_path / "out" / "logs" / f"trial-{number}").glob("events.*"))
    assert not any((tmp_path / "out" / ".fits").iterdir())


@pytest.mark.slow
def test_a_killed_search_ends_as_if_it_had_not_been(path: Path, tmp_path: Path) -> None:
    whole = tune.tune(path, tmp_path / "whole", trials=3)
    out = tmp_path / "out"
    kill_when(lambda: any((out / ".fits").glob("trial-2-*/epoch-2.index")), path, out)
    assert len(list((out / ".fits").iterdir())) == 1
    assert len(pd.read_csv(out / "trials.csv")) == 1
    reporter = Listening()
    found = tune.tune(path, out, trials=3, reporter=reporter)
    assert without_time(found.trials) == without_time(whole.trials)
    [line] = reporter.starting("Going on with trial 2")
    assert line in {f"Going on with trial 2, epochs done: {n}" for n in (1, 2)}
    assert load_config(out / "best.toml") == load_config(tmp_path / "whole" / "best.toml")
    assert not any((out / ".fits").iterdir())
