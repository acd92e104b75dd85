"""Run a command, and note its memory and the lines that it prints as time goes on."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from towers.errors import RecallError

EVERY_S = 0.2
"""How often memory is looked at."""

FIELDS = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
"""The fields of a sample, and what Linux calls them."""


class ScaleError(RecallError):
    """A command that cannot be measured, or fails."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The memory of a process at a time, in MiB."""

    seconds: float
    """Since it was started."""
    rss: float
    """All that is resident."""
    anonymous: float
    """Of that, its own."""
    file: float
    """Of that, pages of files, which the system can take back."""
    peak: float
    """The most that was ever resident until then."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What it printed, and when."""

    seconds: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a command took, from its start to its end."""

    seconds: float
    samples: tuple[Sample, ...]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(
            seconds=plain["seconds"],
            samples=tuple(Sample(**sample) for sample in plain["samples"]),
            lines=tuple(Line(**line) for line in plain["lines"]),
        )


def run_sampled(
    command: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str],
    echo: Callable[[str], None],
    every_s: float = EVERY_S,
) -> Course:
    """Run `command` in `folder` with the environment `variables`, to its end.

    Its memory is that of the process itself; processes that it starts do not count.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        variables: its whole environment.
        echo: called with every line that it prints, errors included.
        every_s: seconds between two looks at its memory.

    Raises:
        ScaleError: it fails, or the system does not tell the memory of a process.
    """
    start = time.monotonic()
    lines: list[Line] = []
    samples: list[Sample] = []

    def read(output: IO[str]) -> None:
        for text in output:
            lines.append(Line(seconds=time.monotonic() - start, text=text.rstrip("\n")))
            echo(lines[-1].text)

    with _started(command, folder=folder, variables=variables) as process:
        reader = threading.Thread(target=read, args=(process.stdout,))
        reader.start()
        try:
            while process.poll() is None:
                sample = _look(process.pid, seconds=time.monotonic() - start)
                samples += [sample] if sample else []
                with suppress(subprocess.TimeoutExpired):
                    process.wait(every_s)
        finally:
            process.kill()  # nothing where it has ended
            reader.join()
    if process.returncode:
        raise ScaleError(_failed(command, process.returncode, lines))
    return Course(seconds=time.monotonic() - start, samples=tuple(samples), lines=tuple(lines))


def _started(
    command: Sequence[str], *, folder: Path, variables: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start a command; what it prints, errors included, comes through a pipe."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _look(pid: int, *, seconds: float) -> Sample | None:
    """Look at the memory of a process; None where it has just ended.

    Raises:
        ScaleError: the system has no such file.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        raise ScaleError(
            "expected /proc to tell the memory of a process, received nothing; run this on Linux"
        ) from None
    found = dict(line.split(":", 1) for line in text.splitlines())
    if not all(name in found for name in FIELDS.values()):
        return None
    values = {field: int(found[name].split()[0]) / 1024 for field, name in FIELDS.items()}
    return Sample(seconds=seconds, **values)


def _failed(command: Sequence[str], code: int, lines: Sequence[Line]) -> str:
    """Say how a command ended."""
    said = "\n".join(f"  {line.text}" for line in lines[-5:])
    killed = "; it was killed, maybe for want of memory" if code < 0 else ""
    return (
        f"{' '.join(command)}\nexpected exit code 0, received {code}{killed}; the last that it "
        f"printed is\n{said}"
    )
