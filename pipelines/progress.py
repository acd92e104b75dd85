"""Progress of a job: its current stage, how much of it is done, the time left, and a log of it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from pipelines.results import Timing
from pipelines.tracking import Tracker, Tracking

Advance = Callable[[int], None]
"""Called with the number of steps done since the last call."""


def ignore(steps: int) -> None:
    """An `Advance` that nobody hears of."""


LINE_EVERY_S = 30
"""How often, in seconds, a long stage is reported where no terminal shows a progress bar."""

FIELDS = "%(asctime)s %(levelname)s %(message)s"


class Reporter:
    """Tells of each stage with its time, and of how much of a long one is done.

    On a terminal, and in a notebook that has ipywidgets, a line moves while a stage runs; elsewhere
    there is a line every half minute.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        log: logging.Logger | None = None,
        trackers: Mapping[str, Tracker] | None = None,
    ) -> None:
        """Print to `console`, and tell `log` the same; without either, stay silent.

        Trackers, by name, are told of figures.
        """
        self.console = console or Console(quiet=True)
        self.timings: list[Timing] = []
        self._log = log
        self._progress: Progress | None = None
        """What moves on a terminal, while there is a stage."""
        self.trackers = trackers or {}
        self.tracking = Tracking(say=self.say)
        """What tells them, and those of the settings, while a run is at work."""

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
        self.note(text.strip(), event="message")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print `name` with the time that the block took, and remember it."""
        start = time.perf_counter()
        self.note(name, event="stage begins")
        with self._moving(name, total=None, unit=None):
            yield
        seconds = time.perf_counter() - start
        self.timings.append(Timing(stage=name, seconds=round(seconds, 3)))
        self.console.print(f"[bold]{name}[/bold] [dim]{seconds:.1f} s[/dim]", highlight=False)
        self.note(name, event="stage ends", seconds=round(seconds, 3))

    @contextmanager
    def bar(self, name: str, total: int, *, unit: str = "") -> Iterator[Advance]:
        """Show how many of `total` steps are done and the time left, until the block ends.

        With a unit, such as users, the rate is shown too.
        """
        lines = _Lines(self, name, total=total, unit=unit)
        with self._moving(name, total=total, unit=unit) as advance:
            yield advance or lines

    def tell(self, line: str, *, name: str, done: int, total: int, left_s: float | None) -> None:
        """Print how much of a long stage is done; the time left is None where nothing says it."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        left = None if left_s is None else round(left_s)
        self.note(name, event="progress", done=done, total=total, seconds_left=left)

    @contextmanager
    def _moving(
        self, name: str, *, total: int | None, unit: str | None
    ) -> Iterator[Advance | None]:
        """A line that moves while the block runs; None where nobody watches.

        All lines share one display, so that a stage and its bars stand below each other.
        """
        is_drawn = self.console.is_jupyter and find_spec("ipywidgets") is not None
        if not (self.console.is_terminal or is_drawn) or self.console.quiet:
            yield None
            return
        progress = self._progress or Progress(*_COLUMNS, console=self.console, transient=True)
        if self._progress is None:
            self._progress = progress
            progress.start()
        task = progress.add_task(name, total=total, unit=unit)
        try:
            yield lambda steps: progress.advance(task, steps)
        finally:
            progress.refresh()
            progress.remove_task(task)
            if not progress.tasks:
                self._progress = None
                progress.stop()

    def note(self, message: str, **fields: object) -> None:
        """Tell the log alone, if there is one, with figures by name."""
        if self._log is not None:
            self._log.info(message, extra=fields)


def json_log(stream: TextIO | None = None) -> logging.Logger:
    """Make a log that writes one JSON object a line: time, level, message, event and its figures.

    Args:
        stream: where; default: standard output.
    """
    log = logging.Logger("fm_recall.job", level=logging.INFO)
    handler = logging.StreamHandler(stream or sys.stdout)
    names = {"asctime": "time", "levelname": "level"}
    handler.setFormatter(JsonFormatter(FIELDS, rename_fields=names))
    log.addHandler(handler)
    return log


class _DoneColumn(ProgressColumn):
    """Shows how many of a bar's steps are done, and how many a second; nothing for a stage."""

    def render(self, task: Task) -> Text:
        """The count as text."""
        if task.total is None:
            return Text("")
        text = f"{int(task.completed):,}/{int(task.total):,}"
        if unit := task.fields["unit"]:
            text += f" {unit}" + (f", {task.speed:,.0f} {unit}/s" if task.speed else "")
        return Text(text, style="dim")


class _TimeColumn(ProgressColumn):
    """Shows how long a stage has run, and how long a bar has left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """The time as text; for a bar, empty before there is a rate."""
        if task.total is None:
            return Text(str(timedelta(seconds=int(task.elapsed or 0))), style="dim")
        left = task.time_remaining
        return Text("" if left is None else f"{timedelta(seconds=int(left))} left", style="cyan")


_COLUMNS = (
    SpinnerColumn(finished_text=" "),
    TextColumn("{task.description}", style="dim", markup=False),
    BarColumn(bar_width=24),
    _DoneColumn(),
    _TimeColumn(),
)


class _Lines:
    """Prints every half minute how much of a long stage is done.

    Rates count from the end of the first step, which is often slow: a graph is traced, or a file is
    opened.
    """

    def __init__(self, reporter: Reporter, name: str, *, total: int, unit: str) -> None:
        """Start the clock."""
        self._reporter, self._name, self._total, self._unit = reporter, name, total, unit
        self._done = self._first = 0
        self._said = time.monotonic()
        self._start: float | None = None

    def __call__(self, steps: int) -> None:
        """Count steps that are done, and print a line if it is time."""
        self._done += steps
        now = time.monotonic()
        if self._start is None:
            self._start, self._first = now, self._done
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        left_s = (self._total - self._done) / rate if rate else None
        text = f"{self._name}: {self._done:,} of {self._total:,} {self._unit}".rstrip()
        if left_s is not None:
            text += f", {rate:,.{0 if rate >= 10 else 2}f}/s" if self._unit else ""  # noqa: PLR2004
            text += f", {timedelta(seconds=round(left_s))} left"
        self._reporter.tell(
            text, name=self._name, done=self._done, total=self._total, left_s=left_s
        )
