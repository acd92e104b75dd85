from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipelines.tuning.trials import Trial, best_of, shown, write_trials

SETTINGS = {"training.l2": 1e-5, "training.folds": 5}
GOOD = Trial(number=2, state="complete", settings=SETTINGS, curve=(0.1, 0.3, 0.2), seconds=6.04)
EQUAL = Trial(number=1, state="complete", settings=SETTINGS, curve=(0.3, 0.1), seconds=4.0)
BETTER = Trial(number=5, state="complete", settings=SETTINGS, curve=(0.4,), seconds=2.0, note="n")
PRUNED = Trial(number=3, state="pruned", settings=SETTINGS, curve=(0.9,), seconds=2.0)
FAILED = Trial(number=4, state="failed", settings=SETTINGS, curve=(), seconds=0.0, note="a, b\nc")


def test_a_trial_is_as_good_as_its_first_best_epoch() -> None:
    assert (GOOD.value, GOOD.best_epoch) == (0.3, 2)
    assert (FAILED.value, FAILED.best_epoch) == (None, 0)


def test_a_trial_says_how_it_went() -> None:
    said = "trial 2: complete  recall@20 0.3000 at epoch 2 of 3  6.0 s"
    assert GOOD.describe("recall@20") == said
    assert BETTER.describe("m").endswith("2.0 s  (n)")
    assert FAILED.describe("m") == "trial 4: failed  0.0 s  (a, b\nc)"
    assert GOOD.describe_settings() == "l2 1e-05, folds 5"


def test_values_are_shown_as_they_are_written() -> None:
    values = [1e-5, 0.05, 5, 1234567, "spectral", None]
    assert [shown(value) for value in values] == [
        "1e-05",
        "0.05",
        "5",
        "1234567",
        "spectral",
        "open",
    ]


def test_only_complete_trials_are_ranked_and_of_equals_the_earlier_is_first() -> None:
    assert best_of([EQUAL, GOOD, PRUNED, FAILED, BETTER]) == [BETTER, EQUAL, GOOD]
    assert best_of([PRUNED, FAILED]) == []


def test_every_trial_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_trials(path, [GOOD, FAILED], metric="recall@20")
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert frame.to_dict("records") == [
        {
            "trial": "2",
            "state": "complete",
            "recall@20": "0.3",
            "best_epoch": "2",
            "epochs": "3",
            "seconds": "6.0",
            "training.l2": "1e-05",
            "training.folds": "5",
            "note": "",
        },
        {
            "trial": "4",
            "state": "failed",
            "recall@20": "",
            "best_epoch": "0",
            "epochs": "0",
            "seconds": "0.0",
            "training.l2": "1e-05",
            "training.folds": "5",
            "note": "a, b\nc",
        },
    ]
