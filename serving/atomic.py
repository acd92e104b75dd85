"""File operations that a reader sees whole or not at all, even where the writer is killed.

What is being written has a hidden name that ends in `.partial` beside its final name. It is on disk
before it is renamed, and the new name is on disk before the call returns, unless `durable` is
false.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

PARTIAL = ".partial"
"""How the name of a file or folder ends that is not finished, or that is being removed."""


@contextmanager
def replace_file(path: Path, *, folder: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to; the file there replaces `path` when the block ends without error.

    Several writers may do so at the same time: the last one to end wins.

    Args:
        path: the file to replace; it need not exist.
        folder: where it is written, on the same file system; by default in its own folder.
        durable: whether to wait until the file is on disk; not for files that a job makes again.
    """
    partial = (folder or path.parent) / f".{path.name}.{uuid4().hex}{PARTIAL}"
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """Open a text file (UTF-8) that replaces `path` when the block ends without error."""
    with replace_file(path) as partial, partial.open("x", encoding="utf-8", newline="") as file:
        yield file


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file `path` by one that holds `text` (UTF-8)."""
    with open_atomic(path) as file:
        file.write(text)


@contextmanager
def make_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it gets the name `path` when the block ends without error.

    Only one writer at a time may make the same folder. What a killed writer left is removed first.

    Raises:
        OSError: `path` exists and is not an empty folder.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        move_directory(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_directory(source: Path, target: Path) -> None:
    """Rename `source`, a finished directory on the same file system, to the new name `target`.

    Raises:
        OSError: `target` exists and is not an empty folder.
    """
    for folder, _, files in os.walk(source, topdown=False):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    source.rename(target)
    sync(target.parent)
    sync(source.parent)


def move_file(source: Path, target: Path) -> None:
    """Rename `source`, a finished file on the same file system, to `target`, replacing it."""
    sync(source)
    source.replace(target)
    sync(target.parent)
    sync(source.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it, so that nobody finds half of it under its name.

    Where the process is killed meanwhile, a hidden folder is left, whose name ends in `.partial`.
    """
    removed = path.with_name(f".{path.name}.{uuid4().hex}{PARTIAL}")
    path.rename(removed)
    sync(path.parent)
    shutil.rmtree(removed, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left unfinished anywhere below `folder`, where nobody writes."""
    for path in sorted(folder.rglob(f".*{PARTIAL}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)  # it may have gone with its folder


def symlink_atomic(link: Path, target: Path) -> None:
    """Make `link` point to `target` (as given, unresolved), replacing the link that was there.

    Only one writer at a time may set the same link; `locked` sees to that.
    """
    partial = link.with_name(f".{link.name}{PARTIAL}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
    sync(link.parent)


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
