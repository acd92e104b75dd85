"""The folder of a job that may be killed: one process works in it, and only the same job resumes.

    FOLDER/
      job.json    what the job's outcome depends on; written first
      .lock       held by the process that works there
      ...         what the job has done so far

`run`, `tune` and `candidates` keep their work in such folders.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.atomic import PARTIAL, locked, remove_folder, remove_partial, write_text_atomic
from towers.errors import ConfigError

JOB, LOCK = "job.json", ".lock"

N_SHOWN = 5
"""The most differences between two jobs that are shown."""

Job = dict[str, Any]
"""What a job's outcome depends on, such as settings and input files: values that JSON can hold."""


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """A folder for one job."""

    path: Path
    job: Job
    results: str = "*"
    """The pattern of the files that are not to be lost to another job."""
    names: tuple[str, ...] = ()
    """What is removed, in this order, where the job starts over."""

    def __post_init__(self) -> None:
        plain = json.loads(json.dumps(self.job))  # lists for tuples, as a file gives it back
        object.__setattr__(self, "job", plain)

    def check(self) -> None:
        """Refuse a folder that cannot be this job's.

        Raises:
            ConfigError: it is a file, holds another job's results, or something else.
        """
        self._check_place()
        if (differences := self.differences()) and self._entries(self.results):
            lines = "\n".join(f"  {line}" for line in differences[:N_SHOWN])
            raise ConfigError(
                f"{self.path}: expected the job that was begun there, received another\n{lines}\n"
                "Restore what has changed, name another folder, or start over where the command "
                "has an option --again"
            )

    @contextmanager
    def claim(self, *, again: bool = False) -> Iterator[bool]:
        """Hold the folder, made if need be, for this job; whether there is work to go on with.

        What a killed process left unfinished is removed. A folder in which the job leaves nothing
        is not kept.

        Args:
            again: whether to start over, whatever job the folder is of.

        Raises:
            ConfigError: the folder cannot be this job's, or another process works in it.
        """
        self._check_place()
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with self._locked():
                self._open(again=again)
                try:
                    yield bool(self._entries("*"))
                finally:
                    if not self._entries("*"):
                        for name in (JOB, LOCK):
                            (self.path / name).unlink(missing_ok=True)
        finally:
            for folder in made:
                with suppress(OSError):  # it is gone, or in use
                    folder.rmdir()

    def remove(self) -> None:
        """Remove the folder of a job that is finished and has its outcome elsewhere."""
        remove_folder(self.path)

    def differences(self) -> list[str]:
        """Say in which values this job differs from the one that was begun in the folder, if any.

        Raises:
            ConfigError: the file that says which job was begun is damaged.
        """
        begun = self._begun()
        return [] if begun is None else _differences(begun, self.job)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder.

        Raises:
            ConfigError: another process holds it.
        """
        with ExitStack() as stack:
            try:
                held = stack.enter_context(locked(self.path / LOCK, wait=False))
            except FileNotFoundError:  # its holder has just removed the folder
                held = False
            if not held:
                raise ConfigError(
                    f"{self.path}: another process works on the job in this folder; wait for it to "
                    "end, or name another folder"
                )
            yield

    def _open(self, *, again: bool) -> None:
        """Make the folder, whose lock is held, ready to begin or to go on."""
        if not again:
            self.check()
        remove_partial(self.path)
        if again or self._begun() is None or self.differences():
            self._clear()
            write_text_atomic(self.path / JOB, to_text(self.job))

    def _check_place(self) -> None:
        """Refuse a path at which there is something else than the folder of a job."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(
                f"{self.path}: expected a folder, received a file; name another folder"
            )
        if self._begun() is None and (others := self._entries("*")):
            raise ConfigError(
                f"{self.path}: expected a new or empty folder, or that of an earlier job, received "
                f"one with other files, such as {others[0].name}; name another folder"
            )

    def _clear(self) -> None:
        """Remove what a job has left here."""
        for name in self.names:
            path = self.path / name
            if path.is_dir():
                remove_folder(path)
            else:
                path.unlink(missing_ok=True)

    def _begun(self) -> Job | None:
        """The job that was begun here; None where there is none."""
        path = self.path / JOB
        try:
            begun: Job = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{path}: damaged: {error}; remove the folder") from None
        return begun

    def _entries(self, pattern: str) -> list[Path]:
        """What a job has finished here, or somebody else has put here, by a pattern."""
        return sorted(
            path
            for path in self.path.glob(pattern)
            if path.name not in {JOB, LOCK}
            and not (path.name.startswith(".") and path.name.endswith(PARTIAL))
        )


def find_unfinished(folder: Path, pattern: str) -> list[Path]:
    """The folders of jobs below `folder` that were killed, and in which nobody works now.

    Folders that were being removed when their process was killed are removed.
    """
    for left in folder.glob(f".{pattern}{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)
    found = []
    for path in sorted(path for path in folder.glob(pattern) if path.is_dir()):
        with suppress(FileNotFoundError), locked(path / LOCK, wait=False) as held:
            if held:
                found.append(path)
    return found


def fingerprint(job: Job) -> str:
    """The sha256 (hex) of a job."""
    return hashlib.sha256(to_text(job).encode()).hexdigest()


def to_text(body: Any) -> str:
    """Write values as JSON for people to read."""
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _differences(begun: Any, received: Any, name: str = "") -> list[str]:
    """Name the values in which two jobs differ, with what was begun and what was received."""
    if isinstance(begun, dict) and isinstance(received, dict):
        return [
            line
            for key in dict.fromkeys([*begun, *received])
            for line in _differences(
                begun.get(key), received.get(key), f"{name}.{key}" if name else key
            )
        ]
    if begun == received:
        return []
    was, now = (json.dumps(value, ensure_ascii=False)[:200] for value in (begun, received))
    return [f"{name}: begun with {was}, received {now}"]
