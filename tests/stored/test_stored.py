"""Versions that earlier releases published are opened, answer as they did, and take changes.

The policy is in docs/runbook.md.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.parent import read_parent
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.retriever import Retriever
from serving.version.manifest import FORMAT
from serving.version.store import Store
from tests.pipelines.conftest import Tiny
from tests.stored.make import ANSWERS, HERE, IDS, MODELS, answers, stored

FORMATS = sorted(
    int(path.name.split("-")[1].split(".")[0]) for path in HERE.glob("format-*.tar.xz")
)


@pytest.fixture(params=FORMATS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A models directory of a format, and what its version answered when it was published."""
    with tarfile.open(stored(request.param)) as archive:
        archive.extractall(tmp_path, filter="fully_trusted")  # links within it, made by us
    return tmp_path / MODELS, json.loads((tmp_path / ANSWERS).read_text())


def test_the_present_format_is_stored() -> None:
    assert FORMAT in FORMATS, "python -m tests.stored.make stores a version of this format"
    assert all(stored(each).stat().st_size < 600_000 for each in FORMATS)


def test_it_answers_as_it_did(opened: tuple[Path, dict[str, Any]]) -> None:
    models, expected = opened
    retriever = Retriever.open(models)
    for name, (ids, scores) in answers(retriever).items():
        assert ids == expected[name][0], name
        assert scores == pytest.approx(expected[name][1], abs=1e-3), name
    explained = retriever.explain("u2i", source={"id": IDS["user"]}, target={"id": IDS["item"]})
    assert explained.to_dict(limit=3)["parts"]


def test_it_takes_changes_and_can_be_continued_from(
    opened: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    models, _ = opened
    retriever = Retriever.open(models)
    fresh = {"item_id": "fresh", "tags": ["group 1"], "title": "Fresh"}
    change = retriever.change("item", upsert=[fresh], delete=["item 5 é"])
    retriever.apply(change)
    found = retriever.retrieve("u2i", features={"history": ["fresh"]}, k=40)["id"].tolist()
    assert "fresh" in found
    assert "item 5 é" not in found
    with Journal(tmp_path / "journal") as journal:
        assert journal.replay(retriever).seq == 0
    parent = read_parent(Store(models), 1, config=Tiny().config())
    assert parent is not None
