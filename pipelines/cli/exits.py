"""The exit codes of commands, and the messages where a command fails or is interrupted."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

FAILED = 1
BAD_INPUT = 2
NOT_PROMOTED = 3
INTERRUPTED = 130

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_WORDS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
"""What TensorFlow, DuckDB, pyarrow and SQLite say in errors of their own."""


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


def full_disk(error: BaseException) -> str | None:
    """One line for an error that comes from a full disk, whichever library it comes from.

    None for any other error.
    """
    seen: BaseException | None = error
    while seen is not None:
        is_full = isinstance(seen, OSError) and seen.errno in FULL
        if is_full or any(words in str(seen) for words in FULL_WORDS):
            where = f" ({seen.filename})" if isinstance(seen, OSError) and seen.filename else ""
            return (
                f"the disk is full{where}; what is finished is kept: make room (fm-recall clean "
                "lists what is left over), and the same command goes on"
            )
        seen = seen.__cause__ or seen.__context__
    return None


def fail(message: str, *, code: int) -> int:
    """Print what went wrong on standard error, and return the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    return code
