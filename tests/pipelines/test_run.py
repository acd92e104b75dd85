from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.results import Results
from pipelines.run import Release, run
from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.fresh.replay import Replayed
from serving.retrieval.retriever import Retriever
from serving.version.store import Store
from serving.version.tables_read import TablesRead
from towers.errors import ConfigError, DataError, TrainingError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

QUICK = {"epochs": 1, "rounds": 0, "refit_on_all": False}


class Calling(Reporter):
    """Calls back where a stage begins; remembers what it was told."""

    def __init__(self, stage: str, call: Callable[[], object]) -> None:
        super().__init__()
        self.at, self.call, self.lines = stage, call, list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text.strip())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if name == self.at:
            self.call()
        with super().stage(name):
            yield


def stop() -> None:
    raise KeyboardInterrupt


def prepare_only(config: RunConfig, out: Path, **frames: Any) -> list[str]:
    """Interrupt a run before it fits anything; what it said."""
    reporter = Calling("round 0: fit", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config, out, reporter=reporter, **frames)
    return reporter.lines


@pytest.mark.usefixtures("towers_alone")
def test_what_is_put_in_while_a_run_trains_counts_in_its_versions(
    tiny: Tiny, tmp_path: Path
) -> None:
    """However often it is interrupted after the tables were read."""
    out, path = tmp_path / "models", tmp_path / "elsewhere"
    config = load_config(tiny.write(tmp_path, training=QUICK))
    with Journal(out / "journal") as journal, Journal(path) as other:

        def put(journal: Journal, number: int) -> None:
            record = {"item_id": f"item {number} é", "title": "Put in"}
            journal.append([list_drafts("item", id_column="item_id", upsert=[record])])

        def put_and_stop() -> None:
            put(journal, 2)
            stop()

        put(journal, 1)
        put(other, 1)
        interrupted = Calling("round 0: fit", put_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(config, out, reporter=interrupted)
        put(journal, 3)
        run(config, out)
        assert Store(out).open().manifest.tables_read is not None
        assert journal.replay(Retriever.open(out)) == Replayed(seq=3, upserted=2, superseded=1)
        assert other.replay(Retriever.open(out)) == Replayed(seq=1, upserted=1)

        prepare_only(config, out, release=Release(journals=[path]))
        (kept,) = out.glob(".run-*/tables_read.json")
        read = TablesRead.read(kept)
        assert read is not None
        assert read.changes == {entry.fingerprint for entry in other.entries()}
    with pytest.raises(ConfigError, match="--journal: expected the folder"):
        prepare_only(config, tmp_path / "new", release=Release(journals=[tmp_path / "none"]))


@pytest.mark.usefixtures("towers_alone")
def test_ids_alone_are_enough(tiny: Tiny, tmp_path: Path) -> None:
    """Without features, validation and test, with weights, and with a ScaNN index."""
    settings: dict[str, Any] = {
        "data": {"interactions": {"timestamp": None, "weight": "importance"}},
        "split": {"test_fraction": 0.0, "validation_fraction": 0.0},
        "training": {"epochs": 2, "rounds": 0},
        "index": {"kind": "scann"},
    }
    table = tiny.tables["interactions"]
    table = table.assign(item_id=table["item_id"].str.split().str[1].astype("int64") * 10**15)
    results = run(tiny.ids_only(**settings), tmp_path, frames={"interactions": table})
    assert results["data"]["counts"] == {
        "users": 60,
        "items": 40,
        "train": len(table),
        "validation": 0,
        "test": 0,
    }
    # nothing stops it early
    assert [record["epoch"] for record in results["rounds"][0]["epochs"]] == [0, 1, 2]
    assert results["rounds"][0]["evaluation"]["segments"]["all"]["figures"] == {}
    assert results["baseline"]["segments"]["all"]["n_users"] == 0
    retriever = Retriever.open(tmp_path)
    assert retriever.bundle.manifest.index["kind"] == "scann"
    likes = table.loc[table["user_id"] == 2**40, "item_id"]
    for asked in ({"id": 2**40}, {"features": {"history": likes.tolist()}}):
        hits = retriever.retrieve("u2i", k=40, exclude_seen=True, **asked)
        assert hits.columns.tolist() == ["id", "score"]
        assert set(hits["id"]) == set(table["item_id"]) - set(likes)
        assert hits["score"].is_monotonic_decreasing
    assert tiny.left_over(tmp_path) == []


def test_weights_are_read(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.ids_only(data={"interactions": {"weight": "importance"}})
    prepare_only(config, tmp_path, frames={"interactions": tiny.tables["interactions"]})
    [folder] = tmp_path.glob(".run-*/prepared")
    by_time = tiny.tables["interactions"].sort_values("time")
    weights = Prepared.load(folder).frame("train")["weight"].tolist()
    assert weights == by_time["importance"].tolist()[: len(weights)]


@pytest.mark.slow
@pytest.mark.usefixtures("no_graphs")
def test_runs_in_one_models_directory_do_not_disturb_each_other(tiny: Tiny, tmp_path: Path) -> None:
    same = tiny.config(training={"epochs": 1}, split={"validation_fraction": 0.0})
    other = tiny.config(training=QUICK, seed=4)
    others, always = list[Results](), Release(promote="always")

    def interfere() -> None:
        with pytest.raises(ConfigError, match=r"run-\w+: another process works on the job in this"):
            run(same, tmp_path, frames=tiny.tables)
        others.append(run(other, tmp_path, frames=tiny.tables, release=always))

    reporter = Calling("round 1: fit", interfere)
    results = run(same, tmp_path, frames=tiny.tables, reporter=reporter, release=always)
    assert [found["version"] for found in results["rounds"]] == [1, 3]
    assert others[0]["rounds"][0]["version"] == 2
    store = Store(tmp_path)
    assert store.versions() == [1, 2, 3]
    for version, parent in ((1, None), (2, None), (3, 1)):
        bundle = store.open(version)  # with its checksums
        assert bundle.manifest.parent_version == parent
        assert bundle.manifest.config["seed"] == (4 if version == 2 else 3)
    assert store.current() == 3
    assert tiny.left_over(tmp_path) == []


@pytest.mark.usefixtures("no_graphs")
def test_a_run_that_is_killed_while_it_tidies_up_is_finished(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_all = shutil.rmtree

    def remove_some(folder: Path, **how: Any) -> None:
        if not (folder / "job.json").exists():  # another folder than that of the run
            return remove_all(folder, **how)
        for path in [path for path in folder.rglob("*") if path.is_file()][::2]:
            path.unlink()
        raise KeyboardInterrupt

    config = tiny.config(training=QUICK, split={"validation_fraction": 0.0})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("serving.atomic.shutil.rmtree", remove_some)
        run(config, tmp_path, frames=tiny.tables)
    before = tiny.digest(tmp_path / "versions")
    run(config, tmp_path, frames=tiny.tables)  # anew, not with half of what was kept
    after = tiny.digest(tmp_path / "versions")
    assert {name: after[name] for name in before} == before
    assert Store(tmp_path).versions() == [1, 2]
    assert tiny.left_over(tmp_path) == []


def test_only_the_same_run_is_resumed(tiny: Tiny, tmp_path: Path) -> None:
    tables, out = tiny.tables, tmp_path / "models"
    going_on = f"Going on with the interrupted run in {out}"
    assert going_on not in prepare_only(tiny.config(), out, frames=tables)
    assert going_on in prepare_only(tiny.config(), out, frames=tables)
    other_seed = prepare_only(tiny.config(seed=4), out, frames=tables)
    assert going_on not in other_seed
    [unfinished] = [line for line in other_seed if "keeps an unfinished run" in line]
    assert unfinished.endswith("seed: begun with 3, received 4")
    fewer = {**tables, "interactions": tables["interactions"].iloc[1:]}
    assert going_on not in prepare_only(tiny.config(), out, frames=fewer)
    other = {**tables, "items": tables["items"].assign(tags=[["other"]] * 40)}
    assert going_on not in prepare_only(tiny.config(), out, frames=other)


def test_a_run_on_files_that_changed_is_not_resumed(tiny: Tiny, tmp_path: Path) -> None:
    config, out = load_config(tiny.write(tmp_path / "data")), tmp_path / "models"
    going_on = f"Going on with the interrupted run in {out}"
    assert going_on not in prepare_only(config, out)
    assert going_on in prepare_only(config, out)
    path = tmp_path / "data" / "items.parquet"
    os.utime(path, ns=(0, 0))
    assert going_on not in prepare_only(config, out)


def test_a_folder_of_shards_is_the_same_only_with_the_same_shards(
    tiny: Tiny, tmp_path: Path
) -> None:
    written, out = tiny.write(tmp_path / "data"), tmp_path / "models"
    folder = tmp_path / "data" / "shards"
    folder.mkdir()
    shutil.move(tmp_path / "data" / "interactions.parquet", folder / "0.parquet")
    text = written.read_text(encoding="utf-8").replace("interactions.parquet", "shards")
    written.write_text(text, encoding="utf-8")
    config = load_config(written)
    going_on = f"Going on with the interrupted run in {out}"
    assert going_on not in prepare_only(config, out)
    assert going_on in prepare_only(config, out)
    added = tiny.tables["interactions"].iloc[:1].assign(time=0)
    added.to_parquet(folder / "1.parquet")
    assert going_on not in prepare_only(config, out)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_give_what_the_frames_give(tiny: Tiny, tmp_path: Path, suffix: str) -> None:
    written = tiny.write(tmp_path / "data", suffix=suffix)
    from_files = prepare_only(load_config(written), tmp_path / "files")
    from_frames = prepare_only(tiny.config(), tmp_path / "frames", frames=tiny.tables)
    assert from_files == from_frames
    first, second = (
        Prepared.load(next((tmp_path / name).glob(".run-*/prepared")))
        for name in ("files", "frames")
    )
    for left, right in ((first.users, second.users), (first.items, second.items)):
        pd.testing.assert_frame_equal(left.map(plain), right.map(plain), check_dtype=False)
    for part in PARTS:
        pd.testing.assert_frame_equal(first.frame(part), second.frame(part))


def plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("names", [["users"], ["interactions", "item"], []])
def test_frames_by_other_names_are_refused(tiny: Tiny, tmp_path: Path, names: list[str]) -> None:
    frames = dict.fromkeys(names, tiny.tables["users"])
    with pytest.raises(ConfigError, match=r"frames: expected 'interactions'.*received"):
        run(tiny.config(), tmp_path / "models", frames=frames)
    assert not (tmp_path / "models").exists()


def test_faulty_rows_stop_the_run_before_anything_is_written(tiny: Tiny, tmp_path: Path) -> None:
    table = tiny.tables["interactions"].astype({"item_id": object})
    table.loc[5, "item_id"] = None
    frames = {**tiny.tables, "interactions": table}
    with pytest.raises(DataError, match="null item_id"):
        run(tiny.config(), tmp_path, frames=frames)
    assert Store(tmp_path).versions() == []
    assert tiny.left_over(tmp_path) == []
    config = tiny.config(data={"on_bad_rows": "quarantine"})
    lines = prepare_only(config, tmp_path, frames=frames)
    assert f"rejected rows are in {tmp_path / 'quarantine' / 'interactions.csv'}" in lines
    assert len(pd.read_csv(tmp_path / "quarantine" / "interactions.csv")) == 1


def test_a_failure_publishes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(training={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        run(config, tmp_path, frames=tiny.tables)
    assert Store(tmp_path).versions() == []
    assert Store(tmp_path).current() is None
    assert not any(tmp_path.glob(".staging-*"))


def test_results_are_plain_and_name_every_stage(published: tuple[Path, Results]) -> None:
    results = published[1]
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    stages = [timing["stage"] for timing in results["timings"]]
    assert stages[:2] == ["read and check", "split"]
    for number in (0, 1):
        last = "export, check against exact, publish"
        for stage in ("fit", "evaluate", last):
            assert stages.count(f"round {number}: {stage}") == 1
