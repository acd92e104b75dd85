"""Where no index finds enough: the exact one is published, or nothing at all."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.publishing import build_shell
from pipelines.run import run
from serving.search import scann_index
from serving.version.store import Store
from tests.without_graphs import TOWERS, without_graphs
from towers.errors import RecallGateError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small corpus into leaves, and reorder too little to find all neighbours."""
    monkeypatch.setattr(scann_index, "FEWEST_FOR_TREE", 16)
    monkeypatch.setattr(build_shell, "REORDER_FACTORS", (1,))


def published_names(root: Path) -> set[str]:
    """What a models directory holds but for logs and the state of interrupted runs."""
    names = {path.name for path in root.iterdir()}
    return {name for name in names if not name.startswith(".run-")} - {"logs"}


@pytest.mark.usefixtures("careless")
def test_bar_out_of_reach_publishes_nothing_if_asked(scann: Published, tmp_path: Path) -> None:
    root = shutil.copytree(scann.root, tmp_path / "models", symlinks=True)
    before = published_names(root)
    index = dataclasses.replace(scann.config.index, recall=1.0, recall_k=5, on_miss="fail")
    with pytest.raises(RecallGateError) as raised:
        run(dataclasses.replace(scann.config, index=index), root, frames=scann.frames)
    assert (Store(root).versions(), Store(root).current()) == ([1], 1)
    assert Store(root).open().manifest == scann.open().bundle.manifest
    assert published_names(root) == before
    message = str(raised.value)
    assert "expected recall@5 of 1.0" in message
    reached = re.search(r"reached (\d\.\d{4})", message)
    assert reached is not None
    assert 0.0 < float(reached[1]) < 1.0
    assert "lower index.recall" in message


@pytest.mark.usefixtures("careless")
def test_bar_out_of_reach_publishes_an_exact_index_and_says_so(
    scann: Published, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    index = dataclasses.replace(scann.config.index, recall=1.0, recall_k=5)
    with without_graphs(but=TOWERS):
        results = run(dataclasses.replace(scann.config, index=index), root, frames=scann.frames)
    bundle = Store(root).open()
    assert bundle.version == results["current_version"] == 1
    lines = results["rounds"][0]["index"]
    assert any("the index is exact, and slower" in line for line in lines)
    missed = [d["missed"] for d in bundle.manifest.index["directions"].values()]
    assert any("expected recall@5 of 1.0" in reason for reason in missed)
    assert "the index is exact, and slower" in bundle.report.read_text(encoding="utf-8")
