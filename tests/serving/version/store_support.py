"""Publishing to a store, here and in a process of its own, for the tests of the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.version.bundle import Bundle
from serving.version.manifest import Provenance
from serving.version.store import Store

MODELS = ("user_tower", "u2i")
PROVENANCE = Provenance(
    name="demo",
    schema_fingerprint="0123456789abcdef",
    config={"seed": 0},
    parent_version=None,
    mined=None,
    index={},
    metrics={},
)
PUBLISHER = """
import os, sys, time
from pathlib import Path
from serving.version.manifest import Provenance
from serving.version.store import Store

def stop(*_):
    print("stopped", flush=True)
    time.sleep(60)

root, step = sys.argv[1:]
provenance = Provenance(name="child", schema_fingerprint="", config={}, parent_version=None,
                        mined=None, index={}, metrics={})
store = Store(Path(root))
with store.staging() as staged:
    (staged / "file").write_text("content")
    if step in ("fsync", "replace", "rename"):
        setattr(os, step, stop)
    print(store.publish(staged, provenance).version, flush=True)
    if step == "published":
        stop()
"""


def write_files(folder: Path, version: int) -> None:
    (folder / "items.parquet").write_text(f"items of {version}")
    for model in MODELS:
        (folder / "models" / model / str(version)).mkdir(parents=True)
        (folder / "models" / model / str(version) / "saved_model.pb").write_text(model)


def publish(store: Store) -> Bundle:
    with store.staging() as staged:
        write_files(staged, store.version_of(staged))
        return store.publish(staged, PROVENANCE)


def served(root: Path) -> dict[str, int]:
    """What TF Serving serves: the highest number below the folder of each model."""
    latest: dict[str, int] = {}
    for path in (root / "models").glob("*/*/saved_model.pb"):
        model, version = path.parts[-3:-1]
        if version.isdecimal():
            latest[model] = max(int(version), latest.get(model, 0))
    return latest


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def start_publisher(root: Path, step: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root), step],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "."},
    )
