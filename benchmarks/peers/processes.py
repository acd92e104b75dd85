"""Run the commands that are measured, and say clearly when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from towers.errors import RecallError

ROOT = Path(__file__).parents[2]
"""The project's root, where every command runs."""


class PeerError(RecallError):
    """A peer that cannot be installed, or a command that fails."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a whole command took, from its start to its end."""

    run_s: float
    cpu_s: float
    """Of all its threads and processes."""
    peak_gib: float
    """The largest resident memory of one of its processes."""


def run_measured(
    command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None
) -> Usage:
    """Run `command` from the project's root; what it prints goes to `folder`/log.txt.

    Raises:
        PeerError: it fails.
    """
    usage = folder / "usage.json"
    measure = [sys.executable, "-m", "benchmarks.peers.measure", str(usage)]
    run_logged([*measure, *command], log=folder / "log.txt", variables=variables)
    return Usage(**json.loads(usage.read_text(encoding="utf-8")))


def run_logged(
    command: Sequence[str], *, log: Path, variables: Mapping[str, str] | None = None
) -> None:
    """Run `command` from the project's root; what it prints goes to the file `log`.

    Raises:
        PeerError: it fails.
    """
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(f"  {line}" for line in lines[-5:])
        raise PeerError(
            f"{' '.join(command)}\nexpected exit code 0, received {done.returncode}; all that it "
            f"printed is in {log}, and ends with\n{said}"
        )
