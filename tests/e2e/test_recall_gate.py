"""An index that does not find enough is not published, and nothing of it stays behind."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.publishing import tune_index
from pipelines.run import run
from serving.search import scann_index
from serving.version.store import Store
from towers.errors import RecallGateError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.e2e.conftest import Published


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small corpus into leaves, and reorder too little to find all neighbours."""
    monkeypatch.setattr(scann_index, "FEWEST_FOR_TREE", 16)
    monkeypatch.setattr(tune_index, "REORDER_FACTORS", (1,))


def published_names(root: Path) -> set[str]:
    """What a models directory holds but for logs and the state of interrupted runs."""
    names = {path.name for path in root.iterdir()}
    return {name for name in names if not name.startswith(".run-")} - {"logs"}


@pytest.mark.usefixtures("careless")
def test_bar_out_of_reach_publishes_nothing(scann: Published, tmp_path: Path) -> None:
    root = shutil.copytree(scann.root, tmp_path / "models", symlinks=True)
    before = published_names(root)
    index = dataclasses.replace(scann.config.index, recall=1.0, recall_k=5)
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
