"""Trials: the fits of a search with their settings and figures, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from serving.atomic import write_text_atomic

BEST = "best.toml"
"""The file in a search's folder that holds the best settings."""

TRIALS = "trials.csv"
"""The file in a search's folder with a row for every trial."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A fit that has ended, with its settings and figures."""

    number: int
    """From 1; trial 1 has the original configuration."""
    state: Literal["complete", "pruned", "failed"]
    settings: Mapping[str, Any]
    """The values of the hyperparameters, by their dotted names."""
    curve: tuple[float, ...]
    """The validation figure after each epoch."""
    seconds: float
    """The time of its epochs."""
    note: str = ""
    """Why it failed, or which trial had the same settings."""

    @property
    def value(self) -> float | None:
        """The best validation figure; None where no epoch ended."""
        return max(self.curve, default=None)

    @property
    def best_epoch(self) -> int:
        """The epoch of the best figure, from 1; 0 where no epoch ended."""
        return self.curve.index(max(self.curve)) + 1 if self.curve else 0

    def describe(self, metric: str) -> str:
        """One line: its state, its best figure and its time."""
        text = f"trial {self.number}: {self.state}"
        if self.value is not None:
            text += f"  {metric} {self.value:.4f} at epoch {self.best_epoch} of {len(self.curve)}"
        return f"{text}  {self.seconds:.1f} s" + (f"  ({self.note})" if self.note else "")

    def describe_settings(self) -> str:
        """One line: its settings, by the last part of each name."""
        return ", ".join(
            f"{name.rpartition('.')[2]} {shown(value)}" for name, value in self.settings.items()
        )


def shown(value: Any) -> str:
    """The value of a setting as text; None, which means the default, is `open`."""
    return f"{value:g}" if isinstance(value, float) else "open" if value is None else str(value)


def best_of(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials, the best first; of equals, the earlier."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return sorted(complete, key=lambda trial: (-max(trial.curve), trial.number))


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a search found."""

    metric: str
    """The validation metric that was maximised."""
    trials: tuple[Trial, ...]
    """All that have ended, in order; the first has the original configuration."""
    importance: Mapping[str, float]
    """The importance of each hyperparameter; empty where trials are too few to estimate it."""
    path: Path
    """The TOML file of the best."""

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, the best first."""
        return best_of(self.trials)


def write_trials(path: Path, trials: Sequence[Trial], *, metric: str) -> None:
    """Write every trial as a row of the CSV file `path`."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            metric: trial.value,
            "best_epoch": trial.best_epoch,
            "epochs": len(trial.curve),
            "seconds": round(trial.seconds, 1),
            **trial.settings,
            "note": trial.note,
        }
        for trial in trials
    ]
    write_text_atomic(path, pd.DataFrame(rows, dtype=object).to_csv(index=False))
