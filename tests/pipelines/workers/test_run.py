"""The whole job with two processes, of which one is killed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from pipelines.results import Results
from serving.version.store import Store
from tests.pipelines.workers.processes import start_workers

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

COMMAND = ("-c", "from pipelines.cli.main import main; main()", "run")


def wait_for_an_epoch(out: Path) -> None:
    """Wait until the chief has finished an epoch."""
    for _ in range(6000):
        for state in out.glob(".run-*/round-0/search/state.json"):
            if len(json.loads(state.read_text(encoding="utf-8"))["records"]) > 1:
                return
        time.sleep(0.02)
    pytest.fail("no epoch within two minutes")


def recall(results: Results) -> float:
    """The recall of the first round on the test interactions."""
    return float(results["rounds"][0]["evaluation"]["segments"]["all"]["figures"]["recall@5"])


def test_a_killed_worker_ends_the_job_which_goes_on_when_started_again(
    tiny: Tiny, published: tuple[Path, Results], tmp_path: Path
) -> None:
    """With blocks on disk; it is as good as that of one process, and opens without workers."""
    training: dict[str, Any] = {"epochs": 8, "patience": 8, "batch_size": 4, "rounds": 0}
    config, out = tiny.write(tmp_path, training=training), tmp_path / "models"
    command = (*COMMAND, config, "--out", out, "--engine", "disk")
    chief, other = start_workers(command)
    wait_for_an_epoch(out)
    other.kill()
    killed = time.monotonic()
    _, err = chief.communicate(timeout=100)
    other.communicate()
    assert time.monotonic() - killed < 60
    assert chief.returncode == 1, err
    assert "error: worker 0 of 2: expected all workers to be at work, lost another one" in err
    assert "Traceback" not in err

    (state,) = out.glob(".run-*/round-0/search/state.json")
    before = json.loads(state.read_text(encoding="utf-8"))["records"]
    chief, other = start_workers(command)
    said, err = chief.communicate(timeout=300)
    other_said, _ = other.communicate(timeout=60)
    assert (chief.returncode, other.returncode) == (0, 0), err
    assert "Going on with the interrupted run" in said
    assert "is published and current" in said
    assert "is published" not in other_said

    bundle = Store(out).open()
    results: Results = json.loads(bundle.metrics.read_text(encoding="utf-8"))
    epochs = results["rounds"][0]["epochs"]
    assert epochs[: len(before)] == before
    assert len(epochs) > len(before)
    assert recall(results) > recall(published[1]) - 0.1
    model = tf.saved_model.load(str(out / "models" / "u2i" / str(bundle.version)))
    assert {"top_k", "serving_default"} <= set(model.signatures)
