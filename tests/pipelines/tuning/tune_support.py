"""A search to listen to, and one in a process of its own to be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.progress import Reporter


class Listening(Reporter):
    """Remembers what it was told; stops as Ctrl-C does after a number of epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text.strip())

    def starting(self, text: str) -> list[str]:
        return [line for line in self.lines if line.startswith(text)]


def kill_when(is_time: Callable[[], bool], path: Path, out: Path) -> None:
    """Start a search of three trials in a process of its own; kill it once it has come so far."""
    command = [
        "-c",
        "from pipelines.cli.main import main; main()",
        "tune",
        str(path),
        "--trials",
        "3",
    ]
    with subprocess.Popen(
        [sys.executable, *command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        while not is_time():
            assert process.poll() is None, process.communicate()[0].decode()
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
