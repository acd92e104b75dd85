"""Start a process for each worker of a job."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).parents[3]
Worker = subprocess.Popen[str]


FIRST, LAST = 20_000, 30_000
"""Ports that no system gives to whoever asks for any, so that nobody takes one in between."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("", random.randrange(FIRST, LAST)))
                found.append(one.getsockname()[1])
        return found


def start_workers(arguments: Sequence[object], *, count: int = 2) -> list[Worker]:
    """Start the same command, which Python runs, as each of some workers on this machine."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    command = [sys.executable, *map(str, arguments)]
    found = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        described = json.dumps({"cluster": {"worker": addresses}, "task": task})
        environment = os.environ | {"TF_CONFIG": described, "COLUMNS": "200"}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        found.append(process)
    return found
