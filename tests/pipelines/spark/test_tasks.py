"""Numbered tasks on Spark: what is reported, in which class an error comes back, when it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.spark.session import open_session
from pipelines.spark.tasks import Outcome, attend, report_on, run_tasks
from towers.errors import ConfigError, DataError, EngineError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Doubled:
    """Says twice its number, but not for every number."""

    fails_at: tuple[int, ...] = ()

    def __call__(self, number: int) -> Outcome:
        if number in self.fails_at:
            raise DataError(f"row {number} is wrong")
        return {"twice": 2 * number}


@dataclass(frozen=True)
class FailsOnce:
    """Meets a full disk the first time."""

    folder: Path

    def __call__(self, number: int) -> Outcome:
        path = self.folder / str(number)
        if not path.exists():
            path.touch()
            raise OSError(28, "No space left on device")
        return {}


def test_a_worker_reports_the_outcome_or_an_error_of_ours() -> None:
    assert json.loads(report_on(Doubled(), 2)) == {"number": 2, "outcome": {"twice": 4}}
    said = json.loads(report_on(Doubled((3,)), 3))
    assert (said["number"], said["error"]) == (3, "DataError")
    assert said["message"].endswith("row 3 is wrong")


def test_an_error_that_may_pass_is_left_to_spark(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        report_on(FailsOnce(tmp_path), 0)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SparkSession]:
    """Spark with two cores on the loopback interface, which runs a failed task again once."""
    (tmp_path / "spark-defaults.conf").write_text("spark.task.maxFailures 2\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with open_session("local[2,2]") as opened:
        yield opened


@pytest.mark.spark
def test_each_number_has_one_outcome_or_the_lowest_error(
    session: SparkSession, tmp_path: Path
) -> None:
    numbers = [7, 3, 100, 4, 9]
    found = list(run_tasks(session, Doubled(), numbers))
    assert sorted(found) == [(number, {"twice": 2 * number}) for number in sorted(numbers)]
    given = []
    with pytest.raises(DataError, match=r"^on \S+: row 4 is wrong$"):
        for number, _ in run_tasks(session, Doubled((100, 4)), numbers):
            given.append(number)
    assert sorted(given) == [3, 7, 9]
    assert list(run_tasks(session, Doubled(), [])) == []
    (tmp_path / "tried").mkdir()
    assert sorted(run_tasks(session, FailsOnce(tmp_path / "tried"), [1, 2])) == [(1, {}), (2, {})]


@dataclass(frozen=True)
class WaitsForFile:
    """All but the first number wait until a file is there."""

    path: Path

    def __call__(self, number: int) -> Outcome:
        while number and not self.path.exists():
            threading.Event().wait(0.01)
        return {}


@pytest.mark.spark
def test_an_outcome_is_given_while_other_tasks_run(session: SparkSession, tmp_path: Path) -> None:
    path, order = tmp_path / "go", list[int]()
    for number, _ in run_tasks(session, WaitsForFile(path), [0, 1, 2]):
        order.append(number)
        path.touch()
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


@pytest.mark.spark
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ConfigError])
def test_what_stops_the_driver_cancels_the_job(kind: type[BaseException]) -> None:
    tags: list[str] = []
    cancelled = threading.Event()
    session: Any = SimpleNamespace(
        addTag=tags.append, interruptTag=lambda tag: cancelled.set() if tag in tags else None
    )

    def wait_and_end() -> list[str]:
        cancelled.wait(60)
        return []

    def consume() -> None:
        for _ in attend(session, wait_and_end, ended=lambda: ["report"]):
            raise kind("stop")

    with pytest.raises(kind, match="stop"):
        consume()
    assert cancelled.is_set()


@pytest.mark.spark
def test_a_job_that_spark_gave_up_has_given_what_had_ended() -> None:
    from pyspark.errors import PySparkException  # noqa: PLC0415 - an extra

    def fail() -> list[str]:
        raise PySparkException("Job aborted\n\tat org.apache\nCaused by: OSError: full disk")

    session: Any = SimpleNamespace(addTag=lambda tag: None)
    reports = attend(session, fail, ended=lambda: ["report"])
    assert next(reports) == "report"
    with pytest.raises(EngineError, match=r"Job aborted\nCaused by: OSError: full disk\nSee Spark"):
        next(reports)
