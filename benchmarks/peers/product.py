"""The row of this product: the command that its users type, and what it published."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.processes import run_measured
from benchmarks.peers.results import Cost, Result, describe_machine
from benchmarks.peers.rows import PRODUCT
from benchmarks.peers.splits import DataSet
from pipelines.results import Results, served_round
from serving.version.store import Store

PROGRAM = "from pipelines.cli.main import main; main()"
"""`fm-recall`, of this checkout, also where it is not installed."""

FIT = re.compile(r"round \d+: fit")
"""The stages of a run that train: the search with validation held out, and the refit."""


def product_settings(data: DataSet) -> dict[str, Any]:
    """What tells one run of the data set from another: a digest of all its settings."""
    return {"fingerprint": data.config.fingerprint()}


def run_product(data: DataSet, *, folder: Path) -> Result:
    """Run `fm-recall run` on the data set's file into the empty folder `folder`.

    The quality is that of the version which the run left current.

    Raises:
        PeerError: the run fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data.fetch()
    models = folder / "models"
    command = [sys.executable, "-c", PROGRAM, "run", str(data.path), "--out", str(models)]
    usage = run_measured(command, folder=folder)
    store = Store(models)
    last = store.open(store.versions()[-1], verify=False)  # knows all rounds and all stages
    results: Results = json.loads(last.metrics.read_text(encoding="utf-8"))
    current = served_round(results)
    return Result(
        data=data.name,
        row=PRODUCT,
        settings=product_settings(data),
        evaluation=current["evaluation"],
        ranks_cold_users=True,
        cost=Cost(
            training_s=sum(t["seconds"] for t in results["timings"] if FIT.fullmatch(t["stage"])),
            run_s=usage.run_s,
            cpu_s=usage.cpu_s,
            peak_gib=usage.peak_gib,
        ),
        versions=_versions(last.manifest.packages),
        machine=describe_machine(),
        epochs=current["epochs"],
    )


def _versions(packages: dict[str, str]) -> dict[str, str]:
    """Our own version and TensorFlow's; a checkout that is not installed has no version."""
    return {
        "fm-recall": packages.get("fm-recall", "checkout"),
        "tensorflow": packages["tensorflow"],
    }
