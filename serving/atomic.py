"""File operations that a reader sees whole or not at all, even where the writer is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` (UTF-8) beside `path` and rename it into place, on disk before this returns."""
    with open_atomic(path) as file:
        file.write(text)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """Open a file (UTF-8) beside `path`, and rename it into place where the block ends well.

    It is on disk before this returns.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def symlink_atomic(link: Path, target: Path) -> None:
    """Make `link` point to `target` (as given, unresolved), replacing the link that was there.

    Only one writer at a time may set the same link; `locked` sees to that.
    """
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)
    sync(link.parent)


def move_directory(source: Path, target: Path) -> None:
    """Rename `source`, a finished directory on the same file system, to the new name `target`.

    Every file and folder of it is on disk before it has its new name, and the new name is on disk
    before this returns.
    """
    for folder, _, files in os.walk(source, topdown=False):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    source.rename(target)
    sync(target.parent)
    sync(source.parent)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of names of a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, made if need be, against other processes and threads.

    The operating system gives the lock back when its holder dies. Without `wait`, the value is
    False where another holds it, or has just removed the file while holding it.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = wait or os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            held = False
        try:
            yield held
        finally:
            if held:
                fcntl.flock(file, fcntl.LOCK_UN)
