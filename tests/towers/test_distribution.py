"""A training step can run under a `tf.distribute` strategy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_step_on_two_replicas_is_the_step_on_both_batches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.towers.distributed_step"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["rows of both"] > 0  # their gradients must be added up before the update
    assert answer["moved"] > 0.05
    assert answer["difference"] < 1e-5
