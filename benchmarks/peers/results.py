"""The outcome of one row on one data set, kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from serving.atomic import write_text_atomic
from towers.typed import STRICT, parse


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cost:
    """What a row took."""

    training_s: float
    """Wall seconds of training alone."""
    run_s: float
    """Wall seconds of the whole process: imports, reading, training, writing."""
    cpu_s: float
    """CPU seconds of the whole process, all threads together."""
    peak_gib: float
    """The largest resident memory of the process."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Result:
    """A row's figures on a data set, and how they came about."""

    data: str
    row: str
    settings: dict[str, Any]
    """What it was trained with; other settings make the result out of date."""
    evaluation: dict[str, Any]
    """`Evaluation.to_dict()` over the test interactions."""
    ranks_cold_users: bool
    """Whether the tool ranks items for users without training interactions."""
    cost: Cost | None
    """None where nothing is trained."""
    versions: dict[str, str]
    """Of the packages that did it."""
    machine: str
    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """The figures of each epoch, where the tool tells them."""

    def save(self, folder: Path) -> None:
        """Write it below the folder of all results, all of it or nothing."""
        path = result_path(folder, self.data, row=self.row)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False))

    def figure(self, metric: str, segment: str) -> float | None:
        """The figure called `metric`, or None where the segment has no users."""
        if segment == "cold_users" and not self.ranks_cold_users:
            return None
        figures: dict[str, float] = self.evaluation["segments"][segment]["figures"]
        return figures.get(metric)


def load_result(folder: Path, data: str, *, row: str) -> Result | None:
    """Read the result of a row on a data set; None where there is none.

    Raises:
        ConfigError: the file is not a result.
    """
    path = result_path(folder, data, row=row)
    if not path.exists():
        return None
    return parse(Result, json.loads(path.read_text(encoding="utf-8")), where=str(path))


def result_path(folder: Path, data: str, *, row: str) -> Path:
    """Where the result of a row on a data set is kept."""
    return folder / data / f"{row}.json"


def describe_machine() -> str:
    """Name this machine: its processor, how many of its cores there are, and its Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"
