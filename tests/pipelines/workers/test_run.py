"""The whole job with two processes, of which one is killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from pipelines.results import Results
from serving.version.store import Store
from tests.patience import PATIENCE_S
from tests.pipelines.workers.processes import start_workers

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

MAIN = "from pipelines.cli.main import main; main()"
KILLED = """
import os, signal
from pipelines.workers.workers import Workers

check_equal = Workers.check_equal

def check_or_die(self, variables, *, epoch):
    if self.index == 1 and epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    check_equal(self, variables, epoch=epoch)

Workers.check_equal = check_or_die
"""
"""Worker 1 dies in the second epoch."""


def recall(results: Results) -> float:
    """The recall of the first round on the test interactions."""
    return float(results["rounds"][0]["evaluation"]["segments"]["all"]["figures"]["recall@5"])


def test_a_killed_worker_ends_the_job_which_goes_on_when_started_again(
    tiny: Tiny, published: tuple[Path, Results], tmp_path: Path
) -> None:
    """With blocks on disk, from an earlier version, and a round with mined negatives.

    It is as good as that of one process, and opens without workers.
    """
    training: dict[str, Any] = {"batch_size": 16, "rounds": 1}
    config, out = tiny.write(tmp_path, training=training), tmp_path / "models"
    shutil.copytree(published[0], out, symlinks=True)
    before = Store(out).versions()
    command = ("run", config, "--out", out, "--engine", "disk", "--from", str(before[0]))
    chief, other = start_workers(("-c", KILLED + MAIN, *command))
    _, err = chief.communicate(timeout=PATIENCE_S)
    other.communicate()
    assert chief.returncode == 1, err
    assert "error: worker 0 of 2: expected all workers to be at work, lost another one" in err
    assert "Traceback" not in err

    (state,) = out.glob(".run-*/round-0/*/state.json")
    finished = json.loads(state.read_text(encoding="utf-8"))["records"]
    assert len(finished) > 1
    chief, other = start_workers(("-c", MAIN, *command))
    said, err = chief.communicate(timeout=PATIENCE_S)
    other_said, _ = other.communicate(timeout=PATIENCE_S)
    assert (chief.returncode, other.returncode) in {(0, 0), (3, 0)}, err
    assert "Going on with the interrupted run" in said
    assert "is published" in said
    assert "is published" not in other_said

    made = [Store(out).open(n) for n in Store(out).versions() if n not in before]
    parents = [before[0], *(bundle.version for bundle in made)][:-1]
    assert [bundle.manifest.parent_version for bundle in made] == parents
    assert all(bundle.manifest.mined for bundle in made)
    results: Results = json.loads(made[-1].metrics.read_text(encoding="utf-8"))
    epochs = results["rounds"][0]["epochs"]
    assert epochs[: len(finished)] == finished
    assert len(epochs) > len(finished)
    assert recall(results) > recall(published[1]) - 0.1
    model = tf.saved_model.load(str(out / "models" / "u2i" / str(made[-1].version)))
    assert {"top_k", "serving_default"} <= set(model.signatures)
