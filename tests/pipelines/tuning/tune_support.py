"""A search to listen to, fits that take no time, and a search of its own process to be killed."""

from __future__ import annotations

import dataclasses
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.training.fit import STATE, Fit, FitState
from pipelines.tuning import tune
from pipelines.tuning.trials import Searched, Trial
from towers.errors import TrainingError

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


def quick(path: Path, out: Path, trials: int, **asked: Any) -> Searched:
    """Search settings that need no other dataset."""
    return tune.tune(path, out, trials=trials, only=[RATE, "training.l2"], **asked)


def best_settings(found: Searched) -> dict[str, Any]:
    return dict(found.ranked[0].settings)


def without_time(trials: tuple[Trial, ...]) -> list[Trial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


class Listening(Reporter):
    """Remembers what it was told; stops as Ctrl-C does after a number of epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text.strip())

    def starting(self, text: str) -> list[str]:
        return [line for line in self.lines if line.startswith(text)]


def kill_when(is_time: Callable[[], bool], path: Path, out: Path) -> None:
    """Start a search of two trials in a process of its own; kill it once it has come so far."""
    command = [
        "-c",
        "from pipelines.cli.main import main; main()",
        "tune",
        str(path),
        "--trials",
        "2",
    ]
    with subprocess.Popen(
        [sys.executable, *command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        while not is_time():
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
