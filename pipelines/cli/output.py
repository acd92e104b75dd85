"""What a long command writes while it works, and where: for a person, for a program, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.cli import native_filter
from pipelines.cli.exits import resumable
from towers.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.progress import Reporter

Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print nothing but errors.", show_default=False)
]
JsonLog = Annotated[
    bool,
    typer.Option("--json", help="Print a JSON object a line, for programs.", show_default=False),
]

NATIVE_LOG = Path("logs", "native.log")
"""Where the notes of native libraries are kept within the folder that a command writes."""

STANDARD_ERROR = 2
PATIENCE_S = 2.0
"""How long the end of a command waits for the last lines of native libraries."""


@contextmanager
def job_output(
    *, quiet: bool, as_json: bool, folder: Path | None = None, after: str | None = "epoch or stage"
) -> Iterator[Reporter]:
    """Report on a job as was asked, keep native lines off the terminal, say how to go on.

    Args:
        quiet: print nothing but errors.
        as_json: print a JSON object a line.
        folder: what the command writes, which keeps what native libraries have noted.
        after: what an interrupted job goes on after; None where it begins anew.

    Raises:
        ConfigError: both were asked for.
    """
    from pipelines.progress import Reporter, json_log

    if quiet and as_json:
        raise ConfigError("--quiet and --json: expected one of them, received both; leave one out")
    console = Console(quiet=quiet or as_json)
    log = json_log() if as_json else None
    with resumable(after=after), native_lines_kept(folder):
        yield Reporter(console, log=log)


@contextmanager
def native_lines_kept(folder: Path | None = None) -> Iterator[None]:
    """Keep the notes of native libraries, such as ScaNN's, off standard error.

    They write to the file descriptor, not to `sys.stderr`. While the block runs, the descriptor
    leads to `native_filter`, which passes errors on; `sys.stderr` leads where it led before.

    Args:
        folder: what keeps the notes, if it is there by then; without it they are dropped.
    """
    sys.stderr.flush()
    try:
        before = os.dup(STANDARD_ERROR)
    except OSError:  # a process without standard error
        yield
        return
    log = [] if folder is None else [str((folder / NATIVE_LOG).absolute())]
    sorter = subprocess.Popen(
        [sys.executable, "-I", "-S", native_filter.__file__, *log],
        stdin=subprocess.PIPE,
        stderr=before,
        start_new_session=True,  # Ctrl-C is not for it: it ends when there are no more lines
    )
    stream = sys.stderr
    is_own = _descriptor_of(stream) == STANDARD_ERROR
    if is_own:
        sys.stderr = os.fdopen(os.dup(before), "w", buffering=1, errors="backslashreplace")
    try:
        if sorter.stdin is not None:
            os.dup2(sorter.stdin.fileno(), STANDARD_ERROR)
            sorter.stdin.close()
        yield
    finally:
        if is_own:
            sys.stderr.flush()
            sys.stderr = stream
        os.dup2(before, STANDARD_ERROR)
        os.close(before)
        with suppress(subprocess.TimeoutExpired):  # another process may write there still
            sorter.wait(PATIENCE_S)


def _descriptor_of(stream: object) -> int | None:
    """The file descriptor of a stream; None where it has none."""
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
