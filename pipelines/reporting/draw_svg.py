"""Draw plots as inline SVG that is legible on light and on dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#3b82c4", "#d9772b", "#2f9e6b", "#a865c9", "#d0506e")
MARKERS = ("o", "s", "^", "D", "v")
GREY = "#8a8f98"
TEXT = "#010203"
"""A placeholder that becomes the page's text colour in the SVG."""

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.color": GREY,
    "legend.frameon": False,
    "legend.labelcolor": TEXT,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "text.color": TEXT,
    "xtick.color": GREY,
    "xtick.labelcolor": TEXT,
    "ytick.color": GREY,
    "ytick.labelcolor": TEXT,
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a plot."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    place: int
    """The position that chooses the colour and the marker, the same in every plot."""
    baseline: bool = False
    """Whether it is the baseline, which is drawn dashed and grey."""
    marked: Sequence[int] = ()
    """The points that get a ring."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The axes around the curves."""

    x_label: str
    y_label: str
    x_ticks: Sequence[float] = ()
    """The positions of the ticks; by default matplotlib chooses them."""
    x_labels: Sequence[str] = ()
    """What is written at these positions, if not the positions themselves."""
    x_whole: bool = False
    """Put ticks at whole numbers only."""
    from_zero: bool = False
    """Start the vertical axis at zero."""
    legend_above: bool = False
    """Put the legend above the axes, where what is drawn fills them."""
    bar: float | None = None
    """A height to mark with a dotted line across."""


def line_plot(lines: Sequence[Line], frame: Frame) -> str:
    """Draw the lines, at least one, as one `<svg>` element; the same lines give the same text."""

    def draw(axes: Axes) -> None:
        for line in lines:
            _draw(axes, line)

    return _plot(draw, frame)


def stacked_bars(
    heights: Mapping[str, Sequence[float]], edges: Sequence[float], frame: Frame
) -> str:
    """Draw bars between `edges` [n + 1] as `<svg>`, those of one name on top of another's."""

    def draw(axes: Axes) -> None:
        bottom = [0.0] * (len(edges) - 1)
        widths = [right - left for left, right in pairwise(edges)]
        for place, (name, values) in enumerate(heights.items()):
            axes.bar(
                edges[:-1],
                values,
                widths,
                bottom,
                align="edge",
                color=COLOURS[place % len(COLOURS)],
                label=name,
            )
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]

    return _plot(draw, frame)


def _plot(draw: Callable[[Axes], None], frame: Frame) -> str:
    """Draw within a frame."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": f"{frame.x_label} {frame.y_label}"}):
        figure = Figure(figsize=(5.6, 3.5), layout="constrained")
        axes = figure.add_subplot(xlabel=frame.x_label, ylabel=frame.y_label)
        draw(axes)
        if frame.bar is not None:
            axes.axhline(frame.bar, color=GREY, linestyle=":", label=f"required: {frame.bar:g}")
        if frame.from_zero:
            axes.set_ylim(bottom=0)
        if frame.x_ticks:
            axes.set_xticks(frame.x_ticks, frame.x_labels or None)
        if frame.x_whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if frame.legend_above:
            figure.legend(loc="outside upper center", ncols=3)
        else:
            axes.legend()
        file = io.StringIO()
        unstamped = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=unstamped)
    return _inline(file.getvalue())


def _draw(axes: Axes, line: Line) -> None:
    """Add one line and the rings around its marked points."""
    colour = GREY if line.baseline else COLOURS[line.place % len(COLOURS)]
    axes.plot(
        line.x,
        line.y,
        color=colour,
        label=line.label,
        linestyle="--" if line.baseline else "-",
        marker="x" if line.baseline else MARKERS[line.place % len(MARKERS)],
    )
    for point in line.marked:
        axes.plot(
            [line.x[point]], [line.y[point]], "o", color=colour, fillstyle="none", markersize=13
        )


def _inline(svg: str) -> str:
    """Make an SVG file an element of an HTML page: sized by it, in its text colour, no links."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (xmlns(:xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1).replace(TEXT, "currentColor").strip()
