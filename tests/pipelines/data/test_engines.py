"""Where a run's tables are prepared: the choice, and that it makes no difference to the version."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig, load_config
from pipelines.data import engines
from pipelines.data.engines import EngineName, Plan, choose_engine
from pipelines.data.prepare import Prepared, prepare
from pipelines.run import PREPARED, run
from serving.retrieval.retriever import Retriever
from serving.version.store import Store
from towers.errors import ConfigError, RecallGateError

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny


def written(tiny: Tiny, folder: Path, **changes: Any) -> RunConfig:
    """The tiny run with its tables in Parquet; the interactions in three shards."""
    config = load_config(tiny.write(folder, **changes))
    whole = Path(config.data.interactions.path)
    rows = pd.read_parquet(whole)
    whole.unlink()
    whole.mkdir()
    for number, chosen in enumerate(np.array_split(np.arange(len(rows)), 3)):
        rows.iloc[chosen].to_parquet(whole / f"part-{number}.parquet", index=False)
    return config


def elsewhere(config: RunConfig, path: Path) -> RunConfig:
    """The same with interactions at another path."""
    interactions = dataclasses.replace(config.data.interactions, path=str(path))
    data = dataclasses.replace(config.data, interactions=interactions)
    return dataclasses.replace(config, data=data)


def test_large_parquet_stays_on_disk_unasked(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tiny, tmp_path)
    assert choose_engine(config, asked=None, master=None).engine == "memory"
    monkeypatch.setattr(engines, "LARGE", len(tiny.tables["interactions"]) - 1)
    assert choose_engine(config, asked=None, master=None).engine == "disk"
    assert choose_engine(config, asked="memory", master=None).engine == "memory"
    assert choose_engine(config, asked="spark", master="local[2]").engine == "spark"


@pytest.mark.parametrize("content", [None, b"user_id,item_id\n1,2\n", b"PAR1 and then nothing"])
def test_tables_that_are_not_parquet_are_left_to_the_engine_in_memory(
    tiny: Tiny, tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LARGE", 0)
    path = tmp_path / ("a.csv" if content is None or b"," in content else "a.parquet")
    if content is not None:
        path.write_bytes(content)
    config = elsewhere(tiny.config(), path)
    assert choose_engine(config, asked=None, master=None).engine == "memory"


def test_an_engine_that_is_none_or_cannot_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = written(tiny, tmp_path)
    with pytest.raises(ConfigError, match="expected memory, disk or spark, received 'dask'"):
        run(config, tmp_path / "models", engine="dask")
    with pytest.raises(ConfigError, match="with --engine spark only"):
        run(config, tmp_path / "models", engine="disk", master="local[2]")
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_a_run_on_disk_publishes_the_version_of_a_run_in_memory(tiny: Tiny, tmp_path: Path) -> None:
    config = written(tiny, tmp_path, training={"refit_on_all": True})
    results = {
        engine: run(config, tmp_path / engine, engine=engine) for engine in ("memory", "disk")
    }
    assert_same_version(results, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_a_continuation_on_disk_publishes_the_version_of_one_in_memory(
    tiny: Tiny, tmp_path: Path
) -> None:
    training = {"epochs": 2, "rounds": 0, "continued_epochs": 2, "refit_on_all": False}
    config = written(tiny, tmp_path, training=training)
    other = dataclasses.replace(config, seed=config.seed + 1)  # holds out other interactions
    random = dataclasses.replace(other.split, by="random")
    other = dataclasses.replace(other, split=random)
    results = {}
    run(config, tmp_path / "memory")
    shutil.copytree(tmp_path / "memory", tmp_path / "disk", symlinks=True)
    for engine in ("memory", "disk"):
        results[engine] = run(other, tmp_path / engine, engine=engine, from_version=1)
        assert "would have been held out" in str(results[engine]["data"])
    assert_same_version(results, tmp_path)


def assert_same_version(results: dict[str, Any], folder: Path) -> None:
    """Both engines' models directories hold the same."""
    for ours, theirs in zip(results["disk"]["rounds"], results["memory"]["rounds"], strict=True):
        assert ours["evaluation"] == theirs["evaluation"]
        for a, b in zip(ours["epochs"], theirs["epochs"], strict=True):
            assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert results["disk"]["data"] == results["memory"]["data"]
    opened = [Retriever.open(folder / engine) for engine in ("memory", "disk")]
    for side in ("user", "item"):
        held, stored = (retriever.catalogue(side) for retriever in opened)
        np.testing.assert_array_equal(held.vectors, stored.vectors)
    first, second = (retriever.parts.seen.matrix.toarray() for retriever in opened)
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_an_interrupted_run_on_disk_goes_on_with_what_is_prepared(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 1, "rounds": 0, "refit_on_all": False}
    config = written(tiny, tmp_path, training=training)
    out = tmp_path / "models"

    def refuse(*args: Any, **options: Any) -> None:
        raise RecallGateError("not yet")

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.publishing.publish_rounds.export_bundle", refuse)
        with pytest.raises(RecallGateError):
            run(config, out, engine="disk")
    [work] = out.glob(".run-*")
    assert Prepared.load(work / PREPARED).counts["users"] == 60
    monkeypatch.setattr("pipelines.run.prepare", refuse)
    run(config, out, engine="disk")
    assert Store(out).current() == 1


@pytest.mark.slow
def test_what_is_at_fault_is_said_and_set_aside_on_disk_too(tiny: Tiny, tmp_path: Path) -> None:
    config = written(tiny, tmp_path, data={"on_bad_rows": "quarantine"})
    shard = tmp_path / "interactions.parquet" / "part-1.parquet"
    rows = pd.read_parquet(shard)
    rows.loc[3, "item_id"] = None
    rows.to_parquet(shard, index=False)
    found = {}
    names: tuple[EngineName, ...] = ("memory", "disk")
    for engine in names:
        prepared = prepare(
            config,
            tmp_path / engine / "prepared",
            plan=Plan(engine=engine, rows=100),
            quarantine_dir=tmp_path / engine / "quarantine",
        )
        csv = (tmp_path / engine / "quarantine" / "interactions.csv").read_text(encoding="utf-8")
        lines = [line.replace(f"/{engine}/", "/") for line in prepared.lines]
        found[engine] = (csv, lines, prepared.counts)
    assert found["disk"] == found["memory"]
    assert "part-1.parquet,4,null item_id" in found["disk"][0]
