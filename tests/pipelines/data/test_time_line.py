from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared, prepare
from pipelines.data.time_line import STRETCHES, time_line

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


def test_every_interaction_is_in_the_stretch_of_its_time(prepared: Prepared) -> None:
    line = time_line(prepared)
    assert line is not None
    times = prepared.frame(*PARTS)["timestamp"]
    assert (line["edges"][0], line["edges"][-1]) == (times.min(), times.max())
    assert len(line["edges"]) == STRETCHES + 1
    for part in PARTS:
        own = prepared.frame(part)["timestamp"]
        assert line["parts"][part] == np.histogram(own, line["edges"])[0].tolist()
    last_of_training = np.flatnonzero(line["parts"]["train"]).max()
    assert np.flatnonzero(line["parts"]["test"]).min() >= last_of_training


def test_without_times_there_is_none(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ids_only(data={"interactions": {"timestamp": None}}, split={"by": "random"})
    frames = {"interactions": tiny.tables["interactions"]}
    assert time_line(prepare(config, tmp_path / "prepared", frames=frames)) is None
