from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

MAIN = "from pipelines.cli.main import main; main()"
FRESH = {"item_id": "fresh", "genres": ["x"], "price": 1.0, "title": "Fresh"}
ASKED = 12
"""Connections, each of which the system gives to one of two processes."""


def start(models: Path, journal: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "serve", str(models), "--journal", str(journal)]
    command += ["--port", "0", "--grpc-port", "0", "--log-format", "json", "--workers", "2"]
    command += ["--timeout", str(PATIENCE_S), "--shutdown", str(PATIENCE_S)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], message: str) -> dict[str, Any]:
    for line in process.stderr or ():
        if line.startswith("{") and json.loads(line)["message"] == message:
            found: dict[str, Any] = json.loads(line)
            return found
    raise AssertionError(f"the log ended before {message!r}")


def workers_of(rest: str) -> set[str]:
    text = httpx.get(f"{rest}/metrics", timeout=PATIENCE_S).text
    return {
        line.rpartition('"')[0][-1] for line in text.splitlines() if "fm_recall_version{" in line
    }


def shown(rest: str) -> set[int]:
    """The statuses of several connections that ask for the fresh item."""
    asked = [httpx.get(f"{rest}/v1/items/fresh", timeout=PATIENCE_S) for _ in range(ASKED)]
    return {answer.status_code for answer in asked}


def change(rest: str, path: str, body: dict[str, Any], figure: str) -> int:
    found: int = httpx.post(f"{rest}/v1/items{path}", json=body, timeout=PATIENCE_S).json()[figure]
    return found


def test_two_processes_are_one_server_that_outlives_one_of_them(
    published: Path, tmp_path: Path
) -> None:
    server = start(published, tmp_path / "journal")
    try:
        addresses = [until(server, "started") for _ in range(2)]
        rest = addresses[0]["rest"]
        assert addresses[1]["rest"] == rest
        wait_until(lambda: workers_of(rest) == {"0", "1"} and shown(rest) == {404})
        assert change(rest, "", {"items": [FRESH]}, "inserted") == 1
        wait_until(lambda: shown(rest) == {200})  # one that is slow to read it is not waited for
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        pids = [
            pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(int(pids[0]), signal.SIGKILL)  # the one that writes
        until(server, "a process of the server died")
        until(server, "version ready")
        wait_until(lambda: workers_of(rest) == {"0", "1"} and shown(rest) == {200})
        assert change(rest, "/delete", {"ids": ["fresh"]}, "deleted") == 1
        wait_until(lambda: shown(rest) == {404})
    finally:
        server.terminate()
        server.communicate(timeout=2 * PATIENCE_S)
    assert server.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_a_process_refuses_to_start_with_is_said_once(published: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = start(published, tmp_path / "file")
    _, log = server.communicate(timeout=2 * PATIENCE_S)
    assert server.returncode == 2
    assert "expected a folder that fresh users and items can be written to" in log
