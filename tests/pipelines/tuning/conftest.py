"""What the tests of a search share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pipelines.tuning import fit_trial
from tests.pipelines.tuning.tune_support import (
    EPOCHS,
    Fits,
)

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    found = Fits()
    monkeypatch.setattr(fit_trial, "fit", found)
    monkeypatch.setattr(fit_trial, "gc", SimpleNamespace(collect=int))  # it takes half a second
    return found


@pytest.fixture
def path(tiny: Tiny, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "data", training={"epochs": EPOCHS})
