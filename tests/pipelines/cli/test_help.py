"""`--help` says everything, and at once."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from pipelines.cli import main as cli

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call

COMMANDS = {
    "init": ["files", "--out", "--again", "--quiet"],
    "check": ["config", "--json", "--engine", "--master", "--quiet"],
    "run": [
        "config",
        "--out",
        "--from",
        "--engine",
        "--master",
        "--promote",
        "--journal",
        "--quiet",
        "--json",
    ],
    "tune": ["config", "--out", "--trials", "--minutes", "--only", "--dims", "--quiet", "--json"],
    "demo": ["--out", "--serve", "--port", "--quiet", "--json"],
    "query": [
        *("direction", "--models", "-m", "--id", "--features", "-k", "--exclude"),
        *("--exclude-seen", "--max-per", "--diversity", "--show", "--json", "--version"),
        "--rank",
    ],
    "explain": [
        *("--models", "-m", "--user", "--item", "--user-features", "--item-features"),
        *("--direction", "--limit", "--show", "--fields", "--users", "-k", "--json", "--version"),
        "--rank",
    ],
    "clean": ["models", "--yes"],
    "candidates": [
        *("models", "--users", "--out", "--items", "--config", "-k", "--channels", "--where"),
        *("--max-per", "--diversity", "--block", "--version", "--again", "--engine", "--master"),
        *("--quiet", "--json", "--rank"),
    ],
    "refresh": [
        "models",
        "--interactions",
        "--version",
        "--engine",
        "--master",
        "--quiet",
        "--json",
    ],
    "versions": ["--models", "-m"],
    "rollback": ["models", "--to"],
    "serve": [
        *("models", "--host", "--port", "--grpc-port", "--max-k", "--max-batch", "--max-body-mb"),
        *("--max-queue", "--timeout", "--poll", "--log-level", "--log-format", "--journal"),
        *("--index", "--uri", "--prefix", "--allow-host", "--allow-origin", "--header-timeout"),
        *("--idle", "--max-cells", "--max-connections", "--max-header-kb", "--max-list"),
        *("--max-results", "--memory-limit", "--read-only", "--shutdown", "--tls-certificate"),
        *("--tls-key", "--tokens", "--without-tokens", "--workers", "--write-port"),
        *("--access-log", "--max-unknown"),
    ],
}
"""The arguments and options of every command."""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_argument_and_option(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    for name in COMMANDS[command]:
        assert name in answer.out.lower()
    declared = typer.main.get_command(cli.app).commands[command].params  # type: ignore[attr-defined]
    spelled = {
        name for param in declared for name in (*param.opts, *param.secondary_opts) if "-" in name
    }
    assert spelled <= {*COMMANDS[command], "--help", "--no-exclude-seen"}


def test_help_lists_the_commands(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    assert all(f" {name} " in answer.out for name in COMMANDS)


def test_help_does_not_wait_for_tensorflow() -> None:
    script = """
import sys
from pipelines.cli.main import main
try:
    main()
finally:
    print([name for name in ("tensorflow", "scann", "pandas") if name in sys.modules])
"""
    for args in (["--help"], ["query", "--help"], ["serve", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *args], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0
        assert ended.stdout.splitlines()[-1] == "[]"
