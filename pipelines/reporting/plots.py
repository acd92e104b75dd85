"""The plots of the report, each with its title and what it shows in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from pipelines.reporting.draw_svg import Frame, Line, line_plot, stacked_bars
from pipelines.results import Results, Round

Points = Sequence[tuple[float, float]]

FIRST_DATE, LAST_DATE = 1e8, 1e11
"""Seconds since 1970: March 1973, and the year 5138."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing, or a sentence in its place where there is nothing to draw."""

    title: str
    about: str
    svg: Markup | None
    words: str
    """What the drawing shows, for those who cannot see it."""


def split_plot(results: Results) -> Plot | None:
    """The interactions by time, those of each part of the split; None where there are no times."""
    line = results["data"].get("time_line")
    if line is None:
        return None
    edges = line["edges"]
    ticks = [edges[0], edges[len(edges) // 2], edges[-1]]
    seconds = seconds_of(edges[-1])
    labels = [date_of(tick * seconds) for tick in ticks] if seconds else ()
    heights = {name: counts for name, counts in line["parts"].items() if any(counts)}
    frame = Frame(
        x_label="time",
        y_label="interactions",
        x_ticks=ticks,
        x_labels=labels,
        legend_above=True,
    )
    words = "; ".join(f"{name} {sum(counts):,}" for name, counts in heights.items())
    return Plot(
        title="The split on a time line",
        about="Positive interactions by time, in stretches of equal length.",
        # Markup: matplotlib escaped every text that it wrote into the SVG.
        svg=Markup(stacked_bars(heights, edges, frame)),
        words=f"Interactions by time: {words}.",
    )


def seconds_of(time: float) -> float | None:
    """The length of the unit, s to ns, that makes a time a likely date; None where none does."""
    units = (1e-3**power for power in range(4))
    return next((unit for unit in units if FIRST_DATE <= time * unit < LAST_DATE), None)


def date_of(seconds: float) -> str:
    """The day, in UTC, of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def training_plots(results: Results) -> list[Plot]:
    """The loss and the validation metric by epoch, one line for each round."""
    metric = results["metric"]
    return [
        _plot(
            _epoch_lines(results["rounds"], "loss"),
            Frame(x_label="epoch", y_label="loss", x_whole=True),
            title="Training loss by epoch",
            about="The mean over the epoch's queries.",
            nothing="No epoch was run.",
        ),
        _plot(
            _epoch_lines(results["rounds"], metric),
            Frame(x_label="epoch", y_label=f"validation {metric}", x_whole=True),
            title=f"Validation {metric} by epoch",
            about="On the validation interactions; this decides when to stop.",
            nothing=f"No epoch was validated with {metric}.",
        ),
    ]


def quality_plots(results: Results) -> list[Plot]:
    """Recall at each K and by popularity decile, of each round and of the popularity baseline."""
    k = results["baseline"]["decile_k"]
    curves = _evaluation_lines(results, _recall_curve)
    return [
        _plot(
            curves,
            Frame(
                x_label="K",
                y_label="recall@K",
                x_ticks=sorted({x for line in curves for x in line.x}),
                from_zero=True,
            ),
            title="Recall@K",
            about="All test users, ranked over the full corpus.",
            nothing="There were no test interactions.",
        ),
        _plot(
            _evaluation_lines(results, _decile_curve),
            Frame(
                x_label="popularity decile of the test items",
                y_label=f"recall@{k}",
                x_ticks=range(1, 11),
                from_zero=True,
            ),
            title=f"Recall@{k} by popularity",
            about="Decile 1 holds the least popular items, decile 10 the most popular; each holds "
            "about a tenth of the training interactions.",
            nothing="There were no test interactions.",
        ),
    ]


def ann_plot(results: Results) -> Plot:
    """Recall against cost of the settings tried for the index, one line for each round."""
    lines = []
    for place, found in enumerate(results["rounds"]):
        settings = sorted(found["ann"], key=lambda setting: setting["cost_us"])
        line = Line(
            label=f"round {found['round']}",
            x=[setting["cost_us"] for setting in settings],
            y=[setting["recall"] for setting in settings],
            place=place,
            marked=[point for point, setting in enumerate(settings) if setting["chosen"]],
        )
        lines.append(line)
    return _plot(
        lines,
        Frame(
            x_label="estimated cost of a query (µs)",
            y_label="share of exact neighbours found",
            bar=results["required_recall"],
        ),
        title="ANN recall against cost",
        about="A point is a setting of the u2i index, with the recall of the kind of query that it "
        "serves worst. A ring marks the setting chosen; the dotted line is the recall that an "
        "index must reach.",
        nothing="The index is exact: there were no approximate settings to try.",
    )


def _plot(lines: Sequence[Line], frame: Frame, *, title: str, about: str, nothing: str) -> Plot:
    """Draw the lines that have points, or say that there is nothing to draw."""
    drawn = [line for line in lines if line.x]
    if not drawn:
        return Plot(title=title, about=nothing, svg=None, words="")
    words = "; ".join(
        f"{line.label} from {line.y[0]:.4g} at {line.x[0]:.4g} to {line.y[-1]:.4g} at "
        f"{line.x[-1]:.4g}"
        for line in drawn
    )
    # Markup: matplotlib escaped every text that it wrote into the SVG.
    svg = Markup(line_plot(drawn, frame))
    return Plot(title=title, about=about, svg=svg, words=f"{title}: {words}.")


def _epoch_lines(rounds: Sequence[Round], key: str) -> list[Line]:
    """One line for each round, over the epochs that have the figure `key`."""
    return [
        _line(
            f"round {found['round']}",
            [(epoch["epoch"], epoch[key]) for epoch in found["epochs"] if key in epoch],
            place=place,
        )
        for place, found in enumerate(rounds)
    ]


def _evaluation_lines(results: Results, curve: Callable[[Mapping[str, Any]], Points]) -> list[Line]:
    """The curve of each round's evaluation, then that of the popularity baseline."""
    rounds = results["rounds"]
    lines = [
        _line(f"round {found['round']}", curve(found["evaluation"]), place=place)
        for place, found in enumerate(rounds)
    ]
    baseline = curve(results["baseline"])
    return [*lines, _line("popularity", baseline, place=len(rounds), baseline=True)]


def _line(label: str, points: Points, *, place: int, baseline: bool = False) -> Line:
    x, y = [point[0] for point in points], [point[1] for point in points]
    return Line(label=label, x=x, y=y, place=place, baseline=baseline)


def _recall_curve(evaluation: Mapping[str, Any]) -> Points:
    """Pairs of K and recall@K over all users."""
    figures = evaluation["segments"]["all"]["figures"].items()
    named = [(name.partition("@"), value) for name, value in figures]
    return sorted((int(k), value) for (metric, _, k), value in named if metric == "recall")


def _decile_curve(evaluation: Mapping[str, Any]) -> Points:
    """Pairs of decile (from 1) and recall, for the deciles with test items."""
    deciles = enumerate(evaluation["deciles"], start=1)
    return [(place, decile["recall"]) for place, decile in deciles if decile["recall"] is not None]
