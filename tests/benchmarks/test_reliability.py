"""The campaigns of `python -m benchmarks.reliability`, in short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.crashes import run_disk_full, run_flips, run_kills
from benchmarks.reliability.hostile import run_hostile
from benchmarks.reliability.load import Mirror, _fault, run_load
from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.world import World, publish_shifted
from serving.retrieval.retriever import Retriever
from tests.made_once import made_once
from tests.stored.make import MODELS, stored

pytestmark = pytest.mark.slow


def record(number: int) -> dict[str, Any]:
    return {"item_id": f"fresh {number}", "tags": ["any"], "title": f"Fresh {number}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The stored version of format 3, and one with other vectors."""

    def make(root: Path) -> None:
        import tarfile  # noqa: PLC0415

        with tarfile.open(stored(3)) as archive:
            archive.extractall(root, filter="fully_trusted")
        publish_shifted(root / MODELS)

    return World(made_once(tmp_path_factory, "reliability", make) / MODELS, record)


def held(outcomes: list[Outcome], *, least: int) -> None:
    for outcome in outcomes:
        assert outcome.tried >= least, outcome.name
        assert not outcome.losses, outcome.line()


def test_what_is_damaged_or_refused_by_a_full_disk_is_known(world: World, tmp_path: Path) -> None:
    held([run_flips(world, tmp_path / "flips", flips=1)], least=40)
    held([run_disk_full(world, tmp_path / "disk", tries=1)], least=100)


def test_answers_are_right_and_changes_stay_while_versions_come_and_go(
    world: World, tmp_path: Path
) -> None:
    held(run_load(world, tmp_path, seconds=3), least=10)


def test_a_server_outlives_hostile_requests_and_its_changes_a_kill(
    world: World, tmp_path: Path
) -> None:
    held(run_hostile(world, tmp_path / "hostile", requests=60), least=60)
    held([run_kills(world, tmp_path / "kills", kills=1)], least=1)


def test_a_wrong_answer_is_a_loss(world: World) -> None:
    retriever = Retriever.open(world.models, version=1)
    mirror = Mirror({1: retriever})
    best = sorted(mirror.scores(1, 0, upto=0).items(), key=lambda pair: -pair[1])
    results = [{"id": id, "score": score} for id, score in best[:5]]
    answer = {"version": 1, "results": results}
    assert _fault(answer, mirror, 0, before=0, after=0) == ""
    mirror.changes.append((best[0][0], None))
    assert _fault(answer, mirror, 0, before=0, after=1) == ""
    assert "version 1" in _fault(answer, mirror, 0, before=1, after=1)
    swapped = {"version": 1, "results": [results[0] | {"score": 9.0}, *results[1:]]}
    assert _fault(swapped, mirror, 0, before=0, after=0)
    outcome = Outcome("name", "what")
    outcome.check(True, "")
    outcome.check(False, "item 3")
    assert outcome.line().split()[:6] == ["name", "2", "tried", "1", "survived", "1"]
    assert "lost: item 3" in outcome.line()
