"""What a run took, from what was noted of it: the stages, rates, peaks and test figures."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.scale.generate import Summary
from benchmarks.scale.measure import Course
from pipelines.results import Results
from serving.atomic import write_text_atomic

STAGE = re.compile(r"(\S.*) ([\d.]+) s")
"""How the program prints a stage when it ends; what it says of a stage is indented."""

FIT = "round 0: fit"
LATER = ("measure popularity", "round ")
"""How the names of the stages begin that come after the preparation of the tables."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the run, in seconds since its start."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run."""

    engine: str
    summary: Summary
    input_bytes: int
    """The size of the tables on disk."""
    course: Course
    results: Results

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        plain = {
            "engine": self.engine,
            "summary": asdict(self.summary),
            "input_bytes": self.input_bytes,
            "course": self.course.to_dict(),
            "results": self.results,
        }
        write_text_atomic(path, json.dumps(plain))

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            engine=plain["engine"],
            summary=Summary(**plain["summary"]),
            input_bytes=plain["input_bytes"],
            course=Course.from_dict(plain["course"]),
            results=plain["results"],
        )

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.summary.interactions:,}, {self.engine}"

    @property
    def stages(self) -> list[Stage]:
        """The stages in the order in which they ended; one may lie within another."""
        found = ((line.seconds, STAGE.fullmatch(line.text)) for line in self.course.lines)
        return [
            Stage(name=match[1], start=max(0.0, end - float(match[2])), end=end)
            for end, match in found
            if match
        ]

    @property
    def peak(self) -> float:
        """The most memory of the whole run, in MiB."""
        return max((sample.peak for sample in self.course.samples), default=0.0)

    @property
    def peak_anonymous(self) -> float:
        """The same without pages of files, which the system can take back."""
        return max((sample.anonymous for sample in self.course.samples), default=0.0)

    @property
    def training_peak(self) -> float:
        """The most memory up to the end of training, in MiB."""
        end = max((stage.end for stage in self.stages if stage.name == FIT), default=0.0)
        until = (sample.peak for sample in self.course.samples if sample.seconds <= end)
        return max(until, default=0.0)

    @property
    def preparation_s(self) -> float:
        """How long the tables were read, checked and split."""
        found = list(takewhile(lambda s: not s.name.startswith(LATER), self.stages))
        return max(stage.end for stage in found) - min(stage.start for stage in found)

    @property
    def epoch_s(self) -> float:
        """How long the epochs took."""
        return sum(epoch["seconds"] for epoch in self.results["rounds"][0]["epochs"])

    def recall(self, *, k: int = 20) -> tuple[float, float]:
        """Recall@k of the model and of popularity, on the test interactions."""
        found = (self.results["rounds"][-1]["evaluation"], self.results["baseline"])
        model, popularity = (float(f["segments"]["all"]["figures"][f"recall@{k}"]) for f in found)
        return model, popularity


def figures_table(outcomes: Sequence[Outcome], *, limit_mib: float) -> Table:
    """A column a run: sizes, seconds of each stage, rates, peaks and recall."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("interactions, engine", overflow="fold")
    for outcome in outcomes:
        table.add_column(outcome.title, justify="right")
    columns = [_figures(outcome, limit_mib=limit_mib) for outcome in outcomes]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table


def ratio_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """How the peaks of each run compare to those of the first of the same engine."""
    lines = []
    for outcome in outcomes:
        first = next(other for other in outcomes if other.engine == outcome.engine)
        if outcome is not first:
            whole = outcome.peak / first.peak
            training = outcome.training_peak / first.training_peak
            lines.append(
                f"peak memory of {outcome.title} over that of {first.title}: {whole:.3f}; "
                f"up to the end of training {training:.3f}"
            )
    return lines


def _figures(outcome: Outcome, *, limit_mib: float) -> dict[str, str]:
    """The figures of one run, by what to call them."""
    summary, counts = outcome.summary, outcome.results["data"]["counts"]
    figures = {
        "users": f"{summary.users:,}",
        "items": f"{summary.items:,}",
        "top 1% of the items": f"{summary.top_share:.1%}",
        "a user, median / mean / most": (
            f"{summary.median_a_user:,.0f} / {summary.mean_a_user:,.0f} / {summary.most_a_user:,}"
        ),
        "tables on disk, MiB": f"{outcome.input_bytes / 2**20:,.0f}",
        "kept for training": f"{counts['train']:,}",
    }
    seconds: defaultdict[str, float] = defaultdict(float)
    for stage in outcome.stages:
        seconds[stage.name] += stage.end - stage.start  # the same may come again
    figures |= {f"{name}, s": f"{spent:,.1f}" for name, spent in seconds.items()}
    model, popularity = outcome.recall()
    return figures | {
        "epoch, s": f"{outcome.epoch_s:,.1f}",
        "whole run, s": f"{outcome.course.seconds:,.1f}",
        "prepared, interactions/s": f"{summary.interactions / outcome.preparation_s:,.0f}",
        "epoch, interactions/s": f"{counts['train'] / outcome.epoch_s:,.0f}",
        "peak to the end of training, MiB": f"{outcome.training_peak:,.0f}",
        "peak, MiB": f"{outcome.peak:,.0f}",
        "peak without pages of files, MiB": f"{outcome.peak_anonymous:,.0f}",
        f"within {limit_mib:,.0f} MiB": "yes" if outcome.peak <= limit_mib else "no",
        "recall@20 of the model": f"{model:.4f}",
        "recall@20 of popularity": f"{popularity:.4f}",
    }
