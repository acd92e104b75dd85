"""Store a version of the present format, and what it answers, for `test_stored.py` to open.

Run: .venv/bin/python -m tests.stored.make

Once a format has been released, its file is not made again: a test that opened what it has just
written would say nothing about older versions.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.run import run
from serving.retrieval.retriever import Retriever
from serving.version.manifest import FORMAT
from tests.pipelines.conftest import Tiny
from towers.directions import DIRECTIONS

HERE = Path(__file__).parent
MODELS, ANSWERS = "models", "answers.json"
FEATURES: dict[str, dict[str, Any]] = {
    "user": {"history": ["item 3 é", "item 7 é", "?"], "city": "Rome", "age": 41.0},
    "item": {"item_id": "?", "tags": ["group 1", "any"]},
}
IDS: dict[str, Any] = {"user": 2**40 + 3, "item": "item 3 é"}


def stored(version_format: int) -> Path:
    """Where the version of a format is stored."""
    return HERE / f"format-{version_format}.tar.xz"


def answers(retriever: Retriever) -> dict[str, Any]:
    """What a version answers by an id and by features, in each direction."""
    found = {}
    for name, direction in DIRECTIONS.items():
        for how in ("id", "features"):
            asked = {"id": IDS, "features": FEATURES}[how][direction.source]
            frame = retriever.retrieve(name, k=5, **{how: asked})
            scores = frame["score"].astype(float).round(5).tolist()
            found[f"{name} by {how}"] = [frame["id"].tolist(), scores]
    return found


def main() -> None:
    """Store a version, unless there is one."""
    path = stored(FORMAT)
    if path.exists():
        sys.exit(f"{path} is there already; it is not made again")
    with TemporaryDirectory() as folder:
        models = Path(folder) / MODELS
        tiny = Tiny()
        run(tiny.config(training={"epochs": 1, "rounds": 0}), models, frames=tiny.tables)
        answered = json.dumps(answers(Retriever.open(models)), ensure_ascii=False)
        (Path(folder) / ANSWERS).write_text(answered)
        with tarfile.open(path, "w:xz", preset=9) as archive:
            archive.add(models, MODELS)
            archive.add(Path(folder) / ANSWERS, ANSWERS)


if __name__ == "__main__":
    main()
