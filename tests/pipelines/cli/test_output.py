"""What long commands write: nothing of native libraries but errors, JSON a line, or nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call

ROOT = Path(__file__).parents[3]

NOTES = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1764280000.123456    4242 partitioner_factory_base.cc:59] Size of sampled dataset",
    "2026-11-27 22:10:00.123456: W tensorflow/core/framework/op.cc:1] a warning",
]
ERRORS = [
    "E0000 00:00:1764280000.123456    4242 status.cc:1] out of memory",
    "2026-11-27 22:10:00.123456: F tensorflow/core/platform/x.cc:1] Check failed",
    "terminate called after throwing an instance of 'std::bad_alloc'",
]


def run_below(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python while native lines are kept in a folder."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from pipelines.cli.output import native_lines_kept\n"
        f"with native_lines_kept(Path({str(folder)!r})):\n{lines}"
        "print('after', file=sys.stderr)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_notes_of_native_libraries_go_to_a_log_and_errors_to_the_terminal_too(
    tmp_path: Path,
) -> None:
    text = "".join(f"{line}\n" for line in [*NOTES, *ERRORS])
    ended = run_below(tmp_path, f"os.write(2, {text!r}.encode())\nprint('own', file=sys.stderr)")
    assert ended.returncode == 0
    assert sorted(ended.stderr.splitlines()) == sorted([*ERRORS, "own", "after"])
    assert (tmp_path / "logs" / "native.log").read_text() == text


def test_the_last_words_of_a_process_that_dies_are_shown(tmp_path: Path) -> None:
    last = ERRORS[1]
    ended = run_below(tmp_path, f"os.write(2, b{last + chr(10)!r})\nos.abort()")
    assert ended.returncode == -signal.SIGABRT
    assert last in ended.stderr


def test_no_folder_is_made_for_a_log(tmp_path: Path) -> None:
    ended = run_below(tmp_path / "none", f"os.write(2, b{NOTES[1] + chr(10)!r})")
    assert (ended.returncode, ended.stderr) == (0, "after\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_command_writes_json_a_line_or_nothing(call: Call, models: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.parquet"
    pd.DataFrame({"user_id": [2**40, 2**40 + 1]}).to_parquet(users)
    args = ["candidates", models, "--users", users, "--out"]
    answer = call(*args, tmp_path / "loud", "--json")
    assert (answer.code, answer.err) == (0, "")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert {line["event"] for line in lines} >= {"stage begins", "stage ends"}
    assert lines[-1]["event"] == "result"
    assert lines[-1]["out"] == str(tmp_path / "loud")
    answer = call(*args, tmp_path / "quiet", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert (tmp_path / "quiet" / "manifest.json").is_file()
    answer = call(*args, tmp_path / "both", "--quiet", "--json")
    assert answer.code == 2
    assert "--quiet and --json" in answer.err
