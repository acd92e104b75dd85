"""Progress of a job: its current stage, how much of it is done, and the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines.results import Timing

Advance = Callable[[int], None]
"""Called with the number of steps done since the last call."""

LINE_EVERY_S = 30
"""How often, in seconds, a long stage is reported where no terminal shows a progress bar."""


class Reporter:
    """Prints each stage with its time, and on a terminal a progress bar for a long stage."""

    def __init__(self, console: Console | None = None) -> None:
        """Print to `console`; without one, stay silent."""
        self.console = console or Console(quiet=True)
        self.timings: list[Timing] = []

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print `name` with the time that the block took, and remember it."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.timings.append(Timing(stage=name, seconds=round(seconds, 3)))
        self.console.print(f"[bold]{name}[/bold] [dim]{seconds:.1f} s[/dim]", highlight=False)

    @contextmanager
    def bar(self, name: str, total: int, *, unit: str | None = None) -> Iterator[Advance]:
        """Show how many of `total` steps are done, until the block ends.

        With a unit, such as users, the rate is shown too; and where no terminal shows the bar, a
        line is printed every half minute.
        """
        columns = (
            TextColumn("[dim]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            *([_RateColumn(unit)] if unit else []),
            TimeRemainingColumn(),
        )
        watched = self.console.is_terminal
        lines = _Lines(self, name, total=total, unit=unit) if unit and not watched else None
        with Progress(
            *columns, console=self.console, transient=True, disable=not watched
        ) as progress:
            task = progress.add_task(name, total=total)
            yield lines or (lambda steps: progress.advance(task, steps))


class _RateColumn(ProgressColumn):
    """Shows how many steps are done in a second."""

    def __init__(self, unit: str) -> None:
        """Take the unit of the steps, such as users."""
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The recent rate as text; empty before there is one."""
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "", style="dim")


class _Lines:
    """Prints every half minute how much of a long stage is done."""

    def __init__(self, reporter: Reporter, name: str, *, total: int, unit: str) -> None:
        """Start the clock."""
        self._reporter, self._name, self._total, self._unit = reporter, name, total, unit
        self._done = 0
        self._start = self._said = time.monotonic()

    def __call__(self, steps: int) -> None:
        """Count steps that are done, and print a line if it is time."""
        self._done += steps
        now = time.monotonic()
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        rate = self._done / (now - self._start)
        left = timedelta(seconds=round((self._total - self._done) / rate))
        self._reporter.say(
            f"{self._name}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, "
            f"{left} left"
        )
