"""The exit codes of commands, and the messages where a command fails or is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

FAILED = 1
BAD_INPUT = 2
NOT_PROMOTED = 3
INTERRUPTED = 130


@contextmanager
def resumable(*, after: str | None = "epoch or stage") -> Iterator[None]:
    """Turn an interruption into a message that says how to go on, and its exit code.

    `after` is what the same command goes on after; None where it begins anew.
    """
    try:
        yield
    except KeyboardInterrupt:
        again = "interrupted"
        if after is not None:
            again += f"; the same command goes on from the last finished {after}"
        raise typer.Exit(fail(again, code=INTERRUPTED)) from None


def fail(message: str, *, code: int) -> int:
    """Print what went wrong on standard error, and return the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    return code
