from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines import tracking
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.tracking import Tracking, TrackingConfig, open_tracking
from towers.errors import ConfigError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


class Recorder:
    """Remembers what it is told; fails where it is told to."""

    key = "its-key"
    made: list[Recorder]

    def __init__(self, config: TrackingConfig, *, name: str, key: str | None = None) -> None:
        self.config, self.name, self.asked = config, name, key
        self.told: dict[str, Any] = {}
        self.steps: list[tuple[str, int]] = []
        self.paths: list[str] = []
        self.failed: bool | None = None
        Recorder.made.append(self)

    def settings(self, settings: Mapping[str, Any]) -> None:
        self.told |= settings

    def figures(self, group: str, figures: Mapping[str, float], *, step: int) -> None:
        self.steps.append((group, step))
        self.told |= {f"{group}/{name}": value for name, value in figures.items()}

    def file(self, path: Path) -> None:
        assert path.stat().st_size > 0
        self.paths.append(path.name)

    def end(self, *, failed: bool) -> None:
        self.failed = failed


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    Recorder.made = []
    monkeypatch.setitem(tracking.KINDS, "mlflow", Recorder)
    return Recorder.made


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_a_run_tells_settings_epochs_figures_and_report(
    tiny: Tiny, tmp_path: Path, recorders: list[Recorder]
) -> None:
    to = {"to": ["mlflow"], "project": "shop"}
    results = tiny.run(tmp_path, tracking=to, training={"epochs": 2, "rounds": 0})
    [recorder] = recorders
    assert (recorder.name, recorder.asked, recorder.failed) == ("tiny", None, False)
    assert recorder.config.project == "shop"
    assert recorder.told["training.epochs"] == 2
    assert ("round-0-search", 0) in recorder.steps
    assert ("round-0-search", 2) in recorder.steps
    [found] = results["rounds"]
    assert recorder.told["round-0-search/recall@5"] == found["epochs"][-1]["recall@5"]
    figures = found["evaluation"]["segments"]["all"]["figures"]
    assert recorder.told["test/all/recall@5"] == figures["recall@5"]
    assert recorder.told["published/version"] == 1
    assert recorder.paths == ["report.html", "metrics.json"]


def test_an_interrupted_run_goes_on_under_its_key_and_a_failed_one_is_closed_as_such(
    tmp_path: Path, recorders: list[Recorder]
) -> None:
    asked = TrackingConfig(to=("mlflow",))

    def stop() -> None:
        with open_tracking(asked, name="run", work=tmp_path, say=print) as told:
            told.figures("loss", {"x": 1.0}, step=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    own = Recorder(TrackingConfig(), name="own")
    with open_tracking(asked, name="run", work=tmp_path, say=print, others={"own": own}):
        pass
    assert [each.asked for each in recorders] == [None, None, "its-key"]
    assert [each.failed for each in recorders] == [True, False, False]


def test_a_tracker_that_fails_is_said_once_and_left_out(recorders: list[Recorder]) -> None:
    broken, whole = (Recorder(TrackingConfig(), name=name) for name in ("broken", "whole"))
    broken.figures = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment]
    lines: list[str] = []
    told = Tracking({"one": broken, "other": whole}, say=lines.append)
    told.figures("test", {"x": 1.0}, step=0)
    told.figures("test", {"x": 2.0}, step=1)
    told.end(failed=False)
    assert len(lines) == 1
    assert lines[0].startswith("tracking with one failed, and the run goes on without it")
    assert (broken.failed, whole.failed) == (None, False)
    assert whole.told == {"test/x": 2.0}


def test_a_missing_package_is_refused_before_anything_is_read(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config: RunConfig = tiny.config(tracking={"to": ["wandb"]})
    reporter = Reporter()
    with pytest.raises(ConfigError, match=r"fm-recall\[wandb\]"):
        run(config, tmp_path / "models", frames=tiny.tables, reporter=reporter)
    assert reporter.timings == []
