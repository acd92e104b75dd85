from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from pipelines.cli import main as cli
from pipelines.config import RunConfig, load_config
from pipelines.data.prepare import Prepared
from pipelines.tuning import fit_trial, tune
from pipelines.tuning.trials import best_of
from tests.pipelines.tuning.tune_support import (
    EPOCHS,
    METRIC,
    RATE,
    Fits,
    Listening,
    best_settings,
    quick,
)
from towers.errors import ConfigError, DataError, TrainingError
from towers.features.kinds import Features, History

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


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
