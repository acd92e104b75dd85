from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipelines.tuning import study as study_module
from pipelines.tuning.search_space import Distribution
from pipelines.tuning.study import JOURNAL, Study, Watch
from pipelines.tuning.trials import Trial
from towers.errors import TrainingError

SPACE: dict[str, Distribution] = {
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "l2": FloatDistribution(1e-5, 1e-1, log=True),
    "folds": CategoricalDistribution((3, 5, 10)),
    "hardest": IntDistribution(5, 20, log=True),
}
START = {"rate": 1e-4, "l2": 0.0, "folds": 5, "hardest": 10}
EPOCHS = 6


def figure(settings: Mapping[str, Any], epoch: int) -> float:
    """Best for a rate of 1e-3, and better each epoch."""
    return 1.0 - abs(math.log10(settings["rate"]) + 3) / 3 - 0.5 / epoch


def objective(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
    for epoch in range(1, EPOCHS + 1):
        watch(epoch, figure(settings, epoch), 0.5)


def open_study(folder: Path, *, space: Mapping[str, Distribution] = SPACE, seed: int = 0) -> Study:
    start = {name: START[name] for name in space}
    return Study(folder, space, start=start, seed=seed, warmup=2)


def search(folder: Path, trials: int, **asked: Any) -> list[Trial]:
    study = open_study(folder, **asked)
    return [study.run_trial(objective) for _ in range(trials)]


def test_the_first_trial_is_the_start_and_is_the_best_so_far(tmp_path: Path) -> None:
    first = search(tmp_path, 1)[0]
    assert (first.number, first.state, first.note) == (1, "complete", "")
    assert first.settings == START  # also l2, which its scale does not have
    assert first.curve == tuple(figure(START, epoch) for epoch in range(1, EPOCHS + 1))
    assert (first.value, first.best_epoch) == (first.curve[-1], EPOCHS)
    assert first.seconds == 0.5 * EPOCHS


def test_trials_stay_in_the_space_and_get_better(tmp_path: Path) -> None:
    trials = search(tmp_path, 20)
    assert [trial.number for trial in trials] == list(range(1, 21))
    for trial in trials[1:]:
        assert list(trial.settings) == list(SPACE)
        assert 1e-4 <= trial.settings["rate"] <= 1e-2
        assert trial.settings["folds"] in {3, 5, 10}
        assert isinstance(trial.settings["hardest"], int)
        assert 5 <= trial.settings["hardest"] <= 20
        assert trial.settings["rate"] == float(f"{trial.settings['rate']:.3g}")
    assert max(trial.curve[-1] for trial in trials) > trials[0].curve[-1] + 0.25


def test_proposals_follow_from_the_trials_so_far_and_the_seed(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    whole = search(folders[0], 12)
    for expected in whole:  # one process a trial
        assert search(folders[1], 1) == [expected]
    assert open_study(folders[1]).trials == whole
    other = search(folders[2], 12, seed=1)
    assert other[0] == whole[0]
    assert all(a.settings != b.settings for a, b in zip(other[1:], whole[1:], strict=True))


def test_a_trial_that_was_interrupted_is_proposed_again(tmp_path: Path) -> None:
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    whole.mkdir()
    interrupted.mkdir()
    expected = search(whole, 8)
    search(interrupted, 7)
    proposed: list[Mapping[str, Any]] = []

    def interrupt(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        proposed.append(settings)
        watch(1, figure(settings, 1), 0.5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_study(interrupted).run_trial(interrupt)
    assert len(open_study(interrupted).trials) == 7
    assert search(interrupted, 1) == expected[7:]
    assert proposed == [expected[7].settings]


@pytest.mark.parametrize("torn", [b"", b'{"op_code":4,"worker_id":"x","stu'])
def test_what_a_killed_process_leaves_is_mended(
    tmp_path: Path, torn: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError("nobody holds the lock")

    monkeypatch.setattr("time.sleep", wait)
    expected = search(tmp_path, 3)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    assert open_study(tmp_path).trials == expected
    more = search(tmp_path, 2)
    assert open_study(tmp_path).trials == expected + more


def test_a_hopeless_trial_is_pruned_but_not_before_there_are_others_to_compare(
    tmp_path: Path,
) -> None:
    study = open_study(tmp_path)

    def with_figure(value: float) -> Trial:
        def run(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
            for epoch in range(1, EPOCHS + 1):
                watch(epoch, value + epoch / 100, 0.5)

        return study.run_trial(run)

    early = [with_figure(value) for value in (0.5, 0.1, 0.4, 0.3)]
    assert {trial.state for trial in early} == {"complete"}
    hopeless = with_figure(0.05)
    assert (hopeless.state, len(hopeless.curve)) == ("pruned", 2)  # after the warm-up
    assert hopeless.value == pytest.approx(0.07)
    assert with_figure(0.38).state == "complete"


def test_a_trial_that_diverges_has_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    def diverge(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        watch(1, 0.2, 0.5)
        raise TrainingError("epoch 2: not finite")

    study = open_study(tmp_path)
    failed = study.run_trial(diverge)
    assert (failed.state, failed.note) == ("failed", "epoch 2: not finite")
    assert (failed.curve, failed.seconds) == ((0.2,), 0.5)
    assert study.run_trial(objective).state == "complete"
    assert [trial.state for trial in open_study(tmp_path).trials] == ["failed", "complete"]


def test_settings_that_are_known_are_not_tried_again(tmp_path: Path) -> None:
    space = {"folds": SPACE["folds"]}
    tried: list[Any] = []

    def run(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        tried.append(settings["folds"])
        watch(1, settings["folds"] / 10, 0.5)

    study = open_study(tmp_path, space=space)
    trials = [study.run_trial(run) for _ in range(12)]
    assert sorted(tried) == [3, 5, 10]
    for trial in trials:
        assert trial.curve == (trial.settings["folds"] / 10,)
        assert (trial.seconds == 0.0) == trial.note.startswith("the same as trial ")
    assert sum(trial.note != "" for trial in trials) == 9


def test_importance_is_estimated_once_there_are_enough_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_study(tmp_path).importance() == {}
    monkeypatch.setattr(study_module, "FEWEST_TO_PRUNE", 99)
    search(tmp_path, 9)
    assert open_study(tmp_path).importance() == {}
    search(tmp_path, 15)
    found = open_study(tmp_path).importance()
    assert set(found) == set(SPACE)
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found, key=found.__getitem__) == "rate"


def test_equal_trials_or_one_setting_say_nothing_of_importance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        watch(1, 0.5, 0.5)

    study = open_study(tmp_path)
    for _ in range(10):
        study.run_trial(run)
    assert study.importance() == {}
    alone = tmp_path / "alone"
    alone.mkdir()
    monkeypatch.setattr(study_module, "FEWEST_TO_PRUNE", 99)
    search(alone, 11, space={"rate": SPACE["rate"]})
    assert open_study(alone, space={"rate": SPACE["rate"]}).importance() == {}
