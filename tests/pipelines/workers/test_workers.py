"""Two processes train one model."""

from __future__ import annotations

import json

import pytest

from tests.patience import PATIENCE_S
from tests.pipelines.workers.processes import start_workers

pytestmark = pytest.mark.slow


def test_a_step_of_two_workers_is_the_step_on_both_batches() -> None:
    """And what differs, and who is gone, is noticed."""
    chief, other = start_workers(["-m", "tests.pipelines.workers.step"])
    out, err = chief.communicate(timeout=PATIENCE_S)
    other.communicate(timeout=PATIENCE_S)
    assert chief.returncode == 0, err
    answer = json.loads(out.splitlines()[-1])
    assert (answer["worker"], answer["told"]) == (0, "é")
    assert answer["rows of both"] > 0  # their gradients must be added up before the update
    assert answer["dense"] == [3.0, 6.0]
    assert answer["moved"] > 0.05
    assert answer["difference"] < 1e-5
    assert "epoch 2: expected equal tables on all workers" in answer["diverged"]
    assert "received others than worker 0 has on worker 1;" in answer["other job"]
    assert answer["lost"].startswith("EngineError")
    assert "lost another one" in answer["lost"]
