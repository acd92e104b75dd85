"""What a process of its own takes: its memory, and where it says what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KIB, GIB = 2**10, 2**30


def resident_gib() -> float:
    """The memory of this process now; Linux only."""
    return _status("VmRSS")


def peak_gib() -> float:
    """The most that it ever was."""
    return _status("VmHWM")


def folder_gib(path: Path) -> float:
    """What the files below a folder take."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / GIB


def run_fresh(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module in a new process and read what it answered.

    Without oneDNN's allocator, which keeps what was freed, so that memory is what is in use.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answer(**measured: float | str) -> None:
    """Say to the process that started this one what was measured."""
    print(json.dumps(measured), flush=True)


def _status(name: str) -> float:
    """One of the lines of /proc/self/status, which are in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB / GIB
