"""Progress: which stage a run is in, how far it is, and how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.results import Timing

Advance = Callable[[int], None]
"""Called with the number of steps done since the last call."""


class Reporter:
    """Prints stages with their times, and bars for long ones where a person watches."""

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
    def bar(self, name: str, total: int) -> Iterator[Advance]:
        """Show how many of `total` steps are done, until the block ends."""
        columns = (
            TextColumn("[dim]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        watched = self.console.is_terminal
        with Progress(
            *columns, console=self.console, transient=True, disable=not watched
        ) as progress:
            task = progress.add_task(name, total=total)
            yield lambda steps: progress.advance(task, steps)
