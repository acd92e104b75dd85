"""A job whose model is published as it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.data.blocks import HeldInteractions
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.training.fit import Fit
from tests.pipelines.training.starts import thinned

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


@pytest.fixture
def popular_job(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> Fit:
    """Of a schema with a spectral start, where some items are popular."""
    measured = {"k": [20], "metric": "ndcg@20"}
    config = tiny.config(model={"init": "spectral"}, evaluation=measured)
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(thinned(prepared, "train")),
    )
    return Fit(
        dataset=dataset,
        config=config,
        epochs=1,
        mined=None,
        validation=thinned(prepared, "validation"),
        directory=tmp_path,
        logs=tmp_path,
    )
