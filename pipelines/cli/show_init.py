"""What `init` and `check` print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.check.check import Checked
from pipelines.guess.draft import Said

COLUMNS = ("min", "p10", "p25", "median", "p75", "p90", "p99", "max", "mean")
"""The quantiles that are shown."""
MARKS = {"train": "#", "validation": "v", "test": "t"}
WIDTH = 40
"""Of the longest bar, in characters."""
EARLIEST, LATEST = 0.0, 4_102_444_800.0
"""Times between 1970 and 2100 are shown as dates."""
SHORT = 60 * 86_400.0
"""Of interactions within fewer seconds, the hours are shown."""


def show_said(
    console: Console, said: Sequence[Said], *, left_out: Sequence[tuple[Path, str]]
) -> None:
    """Print what each column was taken for, why, and how sure that is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("table", "column", "taken as", "why", "how sure"):
        table.add_column(name, overflow="fold")
    before = ""
    for one in said:
        name, *cells = one.cells()
        table.add_row(*map(Text, ["" if name == before else name, *cells]))
        before = name
    console.print(table)
    for path, why in left_out:
        _say(console, f"left out: {path.name}: {why}")


def show_next_of_init(console: Console, out: Path, *, rejected: Sequence[str]) -> None:
    """Print what was written, and what to type next."""
    if rejected:
        _say(console, "Rows at fault, which the configuration sets aside:")
        for line in rejected:
            _say(console, f"  {line}")
    path = shlex.quote(str(out))
    _say(console, f"Wrote {out}: look it over, since its comments say what was guessed. Next:")
    _say(console, f"  fm-recall check {path}")
    _say(console, f"  fm-recall run {path}")


def show_checked(console: Console, found: Checked) -> None:
    """Print what a check found; the rows of each table were printed as they were read."""
    described = found.described
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("part", "interactions", "users", "items"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, counts in described["parts"].items():
        table.add_row(part, *(f"{counts[name]:,}" for name in ("interactions", "users", "items")))
    console.print(table)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("interactions", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for title in ("per user", "per item"):
        table.add_row(title, *(f"{described[title][name]:,.0f}" for name in COLUMNS))
    console.print(table)
    for title, share in described["cold"].items():
        _say(console, f"{share:6.1%} {title}")
    if described["times"] is not None:
        _draw(console, described["times"])
    _say_estimate(console, found)
    _say(console, "")
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning), soft_wrap=True)
    n = len(found.warnings)
    _say(console, f"{n} warning(s). Next:" if n else "No warnings. Next:")
    _say(console, f"  fm-recall run {shlex.quote(found.config)}")


def _draw(console: Console, times: dict[str, Any]) -> None:
    """Draw the split: how many interactions of each part each slice of time has."""
    edges, counts = times["edges"], times["counts"]
    if not edges:
        return
    _say(console, "")
    _say(console, "The split by time (# training, v validation, t test):")
    totals = [sum(found) for found in zip(*counts.values(), strict=True)]
    most = max([*totals, 1])
    for place, total in enumerate(totals):
        bar = ""
        for part, letter in MARKS.items():
            end = round(sum(counts[p][place] for p in _up_to(part)) / most * WIDTH)
            bar += letter * (end - len(bar))
        _say(console, f"  {_time(edges[place], edges):<16} {bar:<{WIDTH}} {total:>9,}".rstrip())


def _up_to(part: str) -> list[str]:
    """The parts up to one, in the order in which they are drawn."""
    return list(MARKS)[: list(MARKS).index(part) + 1]


def _time(value: float, edges: Sequence[float]) -> str:
    """A time as a date, or as the number that it is where it is not in seconds since 1970."""
    if not EARLIEST < edges[0] <= edges[-1] < LATEST:
        return f"{value:,.6g}"
    is_short = edges[-1] - edges[0] < SHORT
    return datetime.fromtimestamp(value, tz=UTC).strftime(
        "%Y-%m-%d %H:%M" if is_short else "%Y-%m-%d"
    )


def _say_estimate(console: Console, found: Checked) -> None:
    """Print what a run takes, about."""
    sizes = found.estimate
    _say(console, "")
    _say(
        console,
        f"Expect about {sizes['memory_mb'] / 1024:.1f} GiB of memory and at most "
        f"{_duration(sizes['seconds'])} of one core: {sizes['epochs']} epochs of "
        f"{_duration(sizes['epoch_s'])}, {sizes['rows of the feature table']:,} rows of the "
        "feature table (an estimate: docs/first-hour.md)",
    )


def _duration(seconds: float) -> str:
    """A length of time, in the unit that suits it."""
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
