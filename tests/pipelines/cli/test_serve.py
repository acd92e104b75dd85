"""`serve`: what it refuses."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--port", "70000"], "port: .*less than or equal to 65535"),
        (["--max-k", "0"], "max_k: .*greater than"),
        (["--timeout", "0"], "timeout_s: .*greater than 0"),
        (["--log-level", "loud"], r"log level: expected one of \['debug', .*'loud'"),
        (["--log-format", "xml"], "log format: expected one of .*'xml'"),
    ],
)
def test_serve_refuses_settings_that_make_no_sense(
    call: Call, tmp_path: Path, options: list[str], expected: str
) -> None:
    answer = call("serve", tmp_path, *options)
    assert answer.code == 2
    assert re.search(expected, answer.err)


def test_serve_refuses_a_path_that_is_no_directory(call: Call, tmp_path: Path) -> None:
    answer = call("serve", tmp_path / "none")
    assert answer.code == 2
    assert f"{tmp_path / 'none'}: expected a models directory" in answer.err


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_serve_says_that_a_port_is_taken_and_leaves_no_more_than_a_journal(
    call: Call, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.server.runtime.logs.configure", lambda level, *, format: None)
    monkeypatch.setattr("gc.freeze", lambda: None)  # what a process does, not a test
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = call("serve", tmp_path, "--port", 0, "--grpc-port", 0, option, port)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {option.strip('-').replace('-', '_')}: ")
    assert len(answer.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"journal"}
