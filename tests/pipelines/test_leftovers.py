from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.job_folder import JobFolder
from pipelines.leftovers import SETTLED_S, find_leftovers
from serving.version.store import Store

DIES_WHILE_IT_STAGES = """
import os, sys
from pathlib import Path
from serving.version.store import Store
with Store(Path(sys.argv[1])).staging() as staged:
    (staged / "half").write_bytes(bytes(2**20))
    os._exit(1)
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """With an interrupted run, a version that was being written, and a half-removed file."""
    with JobFolder(path=tmp_path / ".run-1", job={"seed": 1}).claim():
        (tmp_path / ".run-1" / "epoch").write_text("1")
    subprocess.run([sys.executable, "-c", DIES_WHILE_IT_STAGES, str(tmp_path)], check=False)
    old, young = (tmp_path / f".{name}.partial" for name in ("old", "young"))
    old.write_text("x")
    young.write_text("x")
    long_ago = time.time() - 2 * SETTLED_S
    os.utime(old, (long_ago, long_ago))
    (tmp_path / "versions" / "1").mkdir(parents=True)
    return tmp_path


def names(models: Path) -> list[str]:
    return [one.path.name for one in find_leftovers(models)]


def test_what_is_left_over_is_listed_and_removed_when_asked(models: Path) -> None:
    found = find_leftovers(models)
    assert [one.path.name for one in found] == [".run-1", ".staging-1", ".old.partial"]
    assert found[1].n_bytes >= 2**20
    listed = CliRunner().invoke(app, ["clean", str(models)])
    assert listed.exit_code == 0
    assert all(str(one.path) in listed.output for one in found)
    assert names(models) == [".run-1", ".staging-1", ".old.partial"]
    CliRunner().invoke(app, ["clean", str(models), "--yes"])
    assert names(models) == []
    assert sorted(path.name for path in models.iterdir()) == [".lock", ".young.partial", "versions"]
    assert (models / "versions" / "1").is_dir()
    said = CliRunner().invoke(app, ["clean", str(models)]).output.split()
    assert said[-4:] == ["nothing", "is", "left", "over"]


def test_what_somebody_works_on_is_left_alone(models: Path) -> None:
    with (
        JobFolder(path=models / ".run-1", job={"seed": 1}).claim(),
        Store(models).staging() as staged,
    ):
        assert names(models) == [".old.partial"]
        CliRunner().invoke(app, ["clean", str(models), "--yes"])
        assert (models / ".run-1" / "epoch").exists()
        assert staged.is_dir()
