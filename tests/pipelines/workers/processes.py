"""Start a process for each worker of a job."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[3]
Worker = subprocess.Popen[str]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


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
