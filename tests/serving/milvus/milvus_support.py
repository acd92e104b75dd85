"""The real Milvus as a process, for the tests; and a connection that can be cut."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from serving.milvus.connection import MilvusConnection
from towers.errors import IndexUnavailableError

PROGRAM = Path(__file__).parents[3] / "build" / "milvus" / "bin" / "milvus-server"
START_S = 120.0


class MilvusServer:
    """A server on a free port of this machine; its other ports it finds itself."""

    def __init__(self, folder: Path) -> None:
        if not PROGRAM.exists():
            pytest.fail(f"{PROGRAM}: no such program; `make test-milvus` installs it")
        self._folder = folder
        self._binary = folder / "bin" / "milvus"
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        first = not self._binary.exists()
        self._process = subprocess.Popen(
            [PROGRAM, "--data", self._folder, "--proxy-port", str(self._port)]
            if first
            else [self._binary, "run", "standalone"],
            cwd=self._folder,
            env=os.environ | ({} if first else self._environment()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        milvus = MilvusConnection(self.uri, timeout_s=5)
        end = time.monotonic() + START_S
        while True:
            try:
                milvus.call("list", lambda client, t: client.list_collections(timeout=t))
                return
            except IndexUnavailableError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def _environment(self) -> dict[str, str]:
        """What the program sets for the server; the program itself would take another port, as it
        does not take one that was in use a moment ago."""
        return {
            "DEPLOY_MODE": "STANDALONE",
            "LD_LIBRARY_PATH": str(self._binary.parent),
            "METRICS_PORT": str(free_port()),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
        }

    def kill(self) -> None:
        """End it and the processes it started, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cuttable(MilvusConnection):
    """A connection whose calls fail while it is cut, or from one with a given task on."""

    is_cut = False
    cut_at: str | None = None

    def call(self, task: str, function: Any, *, timeout_s: float | None = None) -> Any:
        if self.is_cut or (self.cut_at is not None and task.startswith(self.cut_at)):
            raise IndexUnavailableError(f"{task}: cut")
        return super().call(task, function, timeout_s=timeout_s)
