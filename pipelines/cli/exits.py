"""How a command ends: the exit codes, and what is said where it does not end well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


@contextmanager
def resumable(*, after: str = "epoch or stage") -> Iterator[None]:
    """Say how to go on after an interruption, and from what on."""
    try:
        yield
    except KeyboardInterrupt:
        again = f"interrupted; the same command goes on from the last finished {after}"
        raise typer.Exit(fail(again, code=INTERRUPTED)) from None


def fail(message: str, *, code: int) -> int:
    """Say what went wrong on standard error, and pass the exit code on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    return code
