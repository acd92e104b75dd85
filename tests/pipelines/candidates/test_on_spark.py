"""Candidates on Spark: the rows of the local engine, whatever machine is lost."""

from __future__ import annotations

import json
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.candidates.on_spark import open_engine
from pipelines.candidates.write_candidates import write_here
from tests.pipelines.spark.spark_support import cluster, run_command, start_command, wait_until
from towers.errors import ConfigError

FIRST = 2**40
N_SHARDS = 61


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every shard."""
    paths = sorted(out.glob("*/*.parquet"))
    return {str(path.relative_to(out)): pq.read_table(path).to_pylist() for path in paths}


def manifest(out: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return body | {"created": ""}


@pytest.fixture
def many(tmp_path: Path) -> list[object]:
    """The options of a job with 61 shards, in each of which some users are unknown."""
    users, config = tmp_path / "users.parquet", tmp_path / "settings.toml"
    ids = np.tile(np.arange(FIRST, FIRST + 61), 200)
    pq.write_table(pa.table({"user_id": ids}), users)
    config.write_text("k = 20\nshard_size = 200\nbatch_size = 30\nneighbours = 9\n")
    return ["--users", users, "--config", config]


def test_local_is_the_default_and_an_unknown_engine_is_refused() -> None:
    with open_engine("local", master=None) as engine:
        assert engine is write_here
    with pytest.raises(ConfigError, match="expected local or spark, received 'flink'"):
        open_engine("flink", master=None).__enter__()
    with pytest.raises(ConfigError, match="with --engine spark only"):
        open_engine("local", master="local[2]").__enter__()


@pytest.mark.spark
def test_spark_writes_what_the_local_engine_writes(models: Path, tmp_path: Path) -> None:
    """All channels, features, rejected rows, a filter, a block list, and audiences."""
    users, items = tmp_path / "users", tmp_path / "items.parquet"
    users.mkdir()
    histories = [["item 3 é", "item 7 é"], None, ["item 1 é"], None]
    columns = {
        "user_id": pa.array([1, 2, FIRST, None]),
        "history": pa.array(histories, pa.list_(pa.string())),
        "city": pa.array(["Rome", None, "Rome", "Rome"]),
    }
    pq.write_table(pa.table(columns), users / "a.parquet")
    known = {"user_id": np.arange(FIRST, FIRST + 60), "history": [None] * 60, "city": [None] * 60}
    pq.write_table(pa.table(known).cast(pa.table(columns).schema), users / "b.parquet")
    pq.write_table(pa.table({"item_id": ["item 7 é", "nothing", "item 2 é"]}), items)
    block = tmp_path / "block.csv"
    pd.DataFrame({"item_id": ["item 8 é", "item 9 é"]}).to_csv(block, index=False)
    config = tmp_path / "settings.toml"
    config.write_text("k = 12\nshard_size = 8\nbatch_size = 3\nneighbours = 9\naudience_k = 6\n")
    args = [models, "--users", users, "--items", items, "--config", config, "--block", block]
    args += ["--where", '{"not": {"column": "tags", "equals": "group 1"}}']
    here, there = tmp_path / "here", tmp_path / "there"
    run_command(tmp_path / "here.log", *args, "--out", here)
    spark = ["--engine", "spark", "--master", "local[2]"]
    said = run_command(tmp_path / "there.log", *args, "--out", there, *spark)
    assert rows_of(there) == rows_of(here)
    assert [row["row"] for row in rows_of(there)["rejected/candidates-00000.parquet"]] == [1, 3]
    assert manifest(there) == manifest(here)
    assert sorted(path.name for path in there.iterdir()) == sorted(
        path.name for path in here.iterdir()
    )
    assert len(re.findall("Spark: start", said)) == 1
    finished = run_command(tmp_path / "again.log", *args, "--out", there, *spark)
    assert "Spark" not in finished


@pytest.mark.spark
def test_stopped_driver_leaves_whole_shards_and_either_engine_goes_on(
    models: Path, many: list[object], tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    args = [models, *many, "--out"]
    spark = ["--engine", "spark", "--master", "local[2]"]

    def parts() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("candidates/part-*")}

    def has_parts(count: int) -> bool:
        return len(parts()) >= count

    for number in (signal.SIGINT, signal.SIGKILL):
        before = parts()
        log = tmp_path / f"{number}.log"
        driver = start_command(log, *args, out, *spark)
        wait_until(partial(has_parts, len(before) + 1), driver.process)
        driver.stop(number)
        assert before.items() < parts().items()
        assert len(parts()) < N_SHARDS
        assert not (out / "manifest.json").exists()
        if number == signal.SIGINT:
            assert driver.process.returncode == 130
            assert "goes on from the last finished shard" in log.read_text()
    before = parts()
    (out / ".staging.left.partial" / "candidates").mkdir(parents=True)
    said = run_command(tmp_path / "rest.log", *args, out, *spark)
    assert "users done before" in said
    assert before.items() < parts().items()
    assert not list(out.glob(".staging*"))
    run_command(tmp_path / "whole.log", *args, whole)
    assert rows_of(out) == rows_of(whole)
    assert manifest(out) == manifest(whole)
    next(iter(before)).unlink()
    run_command(tmp_path / "here.log", *args, out)
    assert manifest(out) == manifest(whole)


@pytest.mark.spark
def test_cluster_that_loses_a_worker_writes_the_same_rows(
    models: Path, many: list[object], tmp_path: Path
) -> None:
    out, whole, log = tmp_path / "out", tmp_path / "whole", tmp_path / "driver.log"
    args = [models, *many, "--out"]
    with cluster(tmp_path) as servers:
        driver = start_command(log, *args, out, "--engine", "spark", "--master", servers.master)
        try:
            wait_until(lambda: list(out.glob("candidates/part-*")), driver.process)
            servers.workers[0].stop(signal.SIGKILL)
            n_before = len(list(out.glob("candidates/part-*")))
            assert n_before < N_SHARDS
            assert driver.process.wait(120) == 0, log.read_text()
        finally:
            driver.stop(signal.SIGKILL)
    assert "Lost executor" in log.read_text()
    run_command(tmp_path / "whole.log", *args, whole)
    assert rows_of(out) == rows_of(whole)
    assert manifest(out) == manifest(whole)
    assert not list(out.glob(".staging*"))


@pytest.mark.spark
def test_what_workers_cannot_read_is_said(models: Path, many: list[object], tmp_path: Path) -> None:
    """The input is damaged after its footer was read."""
    users, log = tmp_path / "users.parquet", tmp_path / "driver.log"
    whole = users.read_bytes()
    users.write_bytes(b"PAR1" + bytes(len(whole) // 2) + whole[len(whole) // 2 + 4 :])
    args = [models, *many, "--out", tmp_path / "out", "--engine", "spark", "--master", "local[2]"]
    driver = start_command(log, *args)
    assert driver.process.wait(120) == 2, log.read_text()
    assert re.search(r"error: on \S+: .*users.parquet: expected a Parquet file", log.read_text())


@pytest.mark.spark
def test_wrong_master_is_refused(models: Path, many: list[object], tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    args = [models, *many, "--out", tmp_path / "out", "--engine", "spark", "--master", "cluster"]
    driver = start_command(log, *args)
    assert driver.process.wait(120) == 2, log.read_text()
    assert "expected a cluster at --master cluster" in log.read_text()
