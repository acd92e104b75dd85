"""Preparing a run's tables on Spark: what one machine gives, whatever machine is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.data.dataset import assemble_dataset
from pipelines.data.engines import RunStep
from pipelines.data.prepare import Prepared
from pipelines.spark.session import open_session
from pipelines.spark.tasks import Outcome, run_tasks
from tests.pipelines.data.prepare_support import Given, assert_same, write_shards
from tests.pipelines.spark.spark_support import cluster
from towers.errors import DataError
from towers.features.vocabulary import Tokens

N_USERS, N_ITEMS, N_ROWS = 300, 80, 6_000
ROWS = 700


@dataclass(frozen=True)
class Doubled:
    """A step that says twice its number, but not for every number."""

    fails_at: int

    def __call__(self, number: int) -> Outcome:
        if number == self.fails_at:
            raise DataError(f"row {number} is wrong")
        return {"twice": 2 * number}


def on_spark(session: Any) -> RunStep:
    return lambda step, count: run_tasks(session, step, range(count))


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Two tables, one of them shards with duplicates and faults, and users with features."""
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "user_id": rng.integers(N_USERS, size=N_ROWS) * 3 + 2**40,
            "item_id": [f"item {row}" for row in rng.integers(N_ITEMS, size=N_ROWS)],
            "time": rng.integers(4_000, size=N_ROWS).astype(float),
            "did": rng.choice(["buy", "buy", "view", "hide"], size=N_ROWS),
            "hour": rng.integers(24, size=N_ROWS),
        }
    )
    rows.loc[[17, 4_711], "item_id"] = None
    types = {"user_id": pa.int64(), "item_id": pa.string(), "time": pa.float64()}
    types |= {"did": pa.string(), "hour": pa.int64()}
    more, rows = rows[rows["did"] == "hide"], rows[rows["did"] != "hide"]
    write_shards(tmp_path / "shards", rows, cuts=[1_000, 2_500], schema=pa.schema(types))
    more = more.rename(columns={"user_id": "who", "time": "at"}).drop(columns="did")
    more.to_parquet(tmp_path / "hidden.parquet", index=False)
    users = pd.DataFrame({"user_id": np.arange(N_USERS) * 3 + 2**40})
    users.assign(city=users["user_id"] % 7).to_parquet(tmp_path / "users.parquet", index=False)
    return Given(
        folder=tmp_path,
        settings={
            "data": {
                "interactions": {
                    "path": str(tmp_path / "shards"),
                    "timestamp": "time",
                    "event": "did",
                },
                "more_interactions": [
                    {
                        "path": str(tmp_path / "hidden.parquet"),
                        "user": "who",
                        "timestamp": "at",
                        "behaviour": "hide",
                    }
                ],
                "behaviours": {"buy": {"role": "target"}, "view": {}, "hide": {"role": "negative"}},
                "users": {"path": str(tmp_path / "users.parquet"), "id": "user_id"},
                "on_bad_rows": "quarantine",
            },
            "user": {
                "features": [{"kind": "history"}, {"kind": "categorical", "column": "city"}],
            },
            "context": {"features": [{"kind": "categorical", "column": "hour"}]},
        },
    )


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark on the loopback interface; the driver's folder is on the workers' path."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))


def assert_same_vocabulary(given: Given, held: Prepared, stored: Prepared) -> None:
    made = [
        assemble_dataset(
            given.config.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=prepared.interactions("train", "validation"),
            contexts=prepared.contexts,
        ).vocabulary
        for prepared in (held, stored)
    ]
    expected, received = made
    assert received.n_rows == expected.n_rows
    assert received.spaces.keys() == expected.spaces.keys()
    for name, space in expected.spaces.items():
        if isinstance(space, Tokens):
            for field in ("tokens", "rows", "counts"):
                found = getattr(received.spaces[name], field)
                np.testing.assert_array_equal(found, getattr(space, field))
        else:
            assert received.spaces[name] == space


@pytest.mark.spark
@pytest.mark.usefixtures("environment")
def test_spark_gives_the_tables_split_and_vocabulary_of_memory(given: Given) -> None:
    held = given.whole()
    with open_session("local[2]") as session:
        stored = given.blocked(ROWS, run_step=on_spark(session))
    assert stored.interactions("train").n_blocks > 5
    assert_same(held, stored)
    assert_same_vocabulary(given, held, stored)
    quarantined = [
        (given.folder / f"rejects-{way}" / "interactions.csv").read_text(encoding="utf-8")
        for way in ("whole", "blocked")
    ]
    assert quarantined[0] == quarantined[1]
    assert quarantined[0].count("null item_id") == 2
    assert any("hidden.parquet" in line for line in stored.lines)


@pytest.mark.spark
@pytest.mark.usefixtures("environment")
def test_an_error_of_a_worker_is_the_driver_s(given: Given) -> None:
    settings = {**given.settings, "data": {**given.settings["data"], "on_bad_rows": "fail"}}
    with open_session("local[2]") as session:
        run_step = on_spark(session)
        with pytest.raises(DataError, match="row 3 is wrong"):
            list(run_step(Doubled(fails_at=3), 9))
        assert sorted(run_step(Doubled(fails_at=-1), 9)) == [
            (number, {"twice": 2 * number}) for number in range(9)
        ]
        with pytest.raises(DataError, match="2 x null item_id"):
            Given(folder=given.folder, settings=settings).blocked(ROWS, run_step=run_step)
    assert not (given.folder / "blocked").exists()


@dataclass(frozen=True)
class Slow:
    """Another step, after a while; says where it was begun."""

    begun: Path
    seconds: float

    def __call__(self, number: int) -> Outcome:
        (self.begun / f"{number}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        return {"twice": 2 * number}


@pytest.mark.spark
@pytest.mark.usefixtures("environment")
def test_steps_of_a_lost_worker_are_carried_out_by_another(tmp_path: Path, given: Given) -> None:
    begun, logs = tmp_path / "begun", tmp_path / "cluster"
    begun.mkdir()
    logs.mkdir()
    with cluster(logs) as machines:
        lost = machines.workers[0]

        def kill() -> None:
            while len(list(begun.iterdir())) < 3:
                time.sleep(0.02)
            lost.stop(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with open_session(machines.master) as session:
            run_step = on_spark(session)
            found = list(run_step(Slow(begun, 0.5), 12))
            killer.join()
            stored = given.blocked(ROWS, run_step=run_step)
        assert lost.process.poll() is not None
    assert sorted(found) == [(number, {"twice": 2 * number}) for number in range(12)]
    assert_same(given.whole(), stored)


@pytest.fixture(autouse=True)
def no_session_left() -> Iterator[None]:
    """Spark keeps one session a process."""
    yield
    import sys  # noqa: PLC0415

    if "pyspark" in sys.modules:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra

        assert SparkSession.getActiveSession() is None
