"""The memory of runs over time, as a PNG with the stages marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scale.figures import Outcome, Stage
from pipelines.reporting.draw_svg import COLOURS, GREY, STYLE

SHORTEST = 0.04
"""The share of the run that a stage must take for its name to be written."""

NAME_WIDTH = 24
"""Characters in a line of a stage's name."""


def plot_memory(outcomes: Sequence[Outcome], path: Path, *, limit_mib: float) -> None:
    """Draw the runs, at least one, below each other, with a dotted line at the limit."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2 * len(outcomes)), layout="constrained")
        for axes, outcome in zip(
            figure.subplots(len(outcomes), squeeze=False, sharey=True).flat, outcomes, strict=True
        ):
            _draw(axes, outcome, limit_mib=limit_mib)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=130)


def _draw(axes: Axes, outcome: Outcome, *, limit_mib: float) -> None:
    """Draw the memory of one run, and its stages behind it."""
    samples, whole = outcome.course.samples, outcome.course.seconds
    seconds = [sample.seconds for sample in samples]
    resident = [sample.rss / 1024 for sample in samples]
    own = [sample.anonymous / 1024 for sample in samples]
    axes.plot(seconds, resident, color=COLOURS[0], label="resident")
    axes.plot(seconds, own, color=COLOURS[1], label="without pages of files", linewidth=1.0)
    axes.axhline(limit_mib / 1024, color=GREY, linestyle=":", label="limit")
    for number, stage in enumerate(_outer(outcome.stages)):
        axes.axvspan(stage.start, stage.end, color=GREY, alpha=0.06 + 0.1 * (number % 2), lw=0)
        if stage.end - stage.start > SHORTEST * whole:
            _name(axes, stage)
    axes.set(title=f"{outcome.title}: peak {outcome.peak:,.0f} MiB", xlim=(0, whole))
    axes.set(xlabel="seconds", ylabel="memory, GiB")
    axes.set_ylim(bottom=0)


def _name(axes: Axes, stage: Stage) -> None:
    """Write the name of a stage along its band."""
    middle = (stage.start + stage.end) / 2
    axes.text(
        middle,
        0.04,
        fill(stage.name, NAME_WIDTH),
        transform=axes.get_xaxis_transform(),
        rotation=90,
        ha="center",
        va="bottom",
        fontsize=8,
        color=GREY,
    )


def _outer(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that lie in no other."""
    return [
        stage
        for stage in stages
        if not any(
            other.start <= stage.start and stage.end <= other.end
            for other in stages
            if other is not stage
        )
    ]
