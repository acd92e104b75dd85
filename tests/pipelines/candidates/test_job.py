"""The whole job, on a published version: what it writes, and that a killed one goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import cli
from pipelines.candidates import job as candidates_module
from pipelines.candidates.job import CandidateJob, write_candidates
from pipelines.candidates.settings import CandidateSettings, load_settings
from pipelines.results import Results
from serving.atomic import locked
from serving.retriever import Retriever
from towers.errors import ConfigError, DataError, QueryError

pytestmark = pytest.mark.slow

FIRST = 2**40
COLUMNS = ["user_id", "item_id", "score", "rank", "channel", "version"]


@pytest.fixture
def models(published: tuple[Path, Results]) -> Path:
    return published[0]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """All users in the version, in two shards, between them one that is unknown."""
    folder = tmp_path / "users"
    folder.mkdir()
    pq.write_table(
        pa.table({"user_id": [*range(FIRST, FIRST + 33), 5]}),
        folder / "a.parquet",
        row_group_size=7,
    )
    pq.write_table(pa.table({"user_id": [*range(FIRST + 33, FIRST + 60)]}), folder / "b.parquet")
    return folder


def settings(**changes: Any) -> CandidateSettings:
    small = {"k": 12, "shard_size": 8, "batch_size": 3, "neighbours": 9}
    return load_settings(None, changes=small | changes)


def read(out: Path, table: str = "candidates") -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(out / table).to_pandas()
    return frame


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every shard."""
    paths = sorted(out.glob("*/*.parquet"))
    return {str(path.relative_to(out)): pq.read_table(path).to_pylist() for path in paths}


def test_every_user_gets_its_candidates(models: Path, users: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    totals = write_candidates(job)["candidates"]
    frame = read(out)
    retriever = Retriever.open(models)
    assert list(frame) == COLUMNS
    assert frame["user_id"].dtype == np.int64
    assert (frame["version"] == retriever.version).all()
    assert frame["user_id"].unique().tolist() == list(range(FIRST, FIRST + 60))
    assert not frame.duplicated(["user_id", "item_id"]).any()
    for user in range(FIRST, FIRST + 60):
        mine = frame[frame["user_id"] == user]
        assert mine["rank"].tolist() == list(range(1, 13))
        seen = retriever.parts.seen.of("user", user - FIRST)
        assert not set(mine["item_id"]) & set(retriever.catalogue("item").ids(seen))
        best = retriever.retrieve("u2i", id=user, k=8, exclude_seen=True)
        assert mine["item_id"].tolist()[:8] == best["item_id"].tolist()
        np.testing.assert_allclose(mine["score"][:8], best["score"], rtol=1e-5, atol=1e-7)
        assert mine["channel"].tolist()[:8] == ["u2i"] * 8
    assert (totals["sources"], totals["rejected"], totals["rows"]) == (61, 1, 720)
    assert totals["channels"] == frame["channel"].value_counts().to_dict()
    assert set(totals["channels"]) == {"u2i", "i2i", "u2u2i", "popularity"}


def test_manifest_names_every_shard_and_what_was_asked(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_candidates(CandidateJob(models=models, users=users, out=out, settings=settings()))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["version"] == Retriever.open(models).version
    assert manifest["settings"]["k"] == 12
    assert [file["name"] for file in manifest["inputs"]["candidates"]] == ["a.parquet", "b.parquet"]
    shards = manifest["tables"]["candidates"]["shards"]
    assert [shard["sources"] for shard in shards] == [8] * 7 + [5]
    assert [shard["rejected"] for shard in shards] == [0, 0, 0, 0, 1, 0, 0, 0]
    for shard in shards:
        assert pq.read_metadata(out / shard["file"]).num_rows == shard["rows"]
        assert (out / shard["file"]).stat().st_size == shard["bytes"]
    rejected = read(out, "rejected").to_dict("records")
    assert rejected == [{"row": 33, "id": "5", "reason": "unknown, and no features given"}]
    assert sorted(path.name for path in out.iterdir()) == [
        *(".lock", "candidates", "job.json", "manifest.json", "rejected"),
    ]


def test_rows_do_not_depend_on_how_the_input_is_cut(
    models: Path, users: Path, tmp_path: Path
) -> None:
    frames = []
    for name, cut in {"a": settings(), "b": settings(shard_size=100, batch_size=64)}.items():
        out = tmp_path / name
        write_candidates(CandidateJob(models=models, users=users, out=out, settings=cut))
        frames.append(read(out).drop(columns="score"))
    pd.testing.assert_frame_equal(frames[0], frames[1])


def test_newcomers_are_answered_by_their_features(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    histories = [["item 3 é", "item 7 é", "no such item"], None, ["item 1 é"], None]
    columns = {
        "user_id": pa.array([1, 2, FIRST, None]),
        "history": pa.array(histories, pa.list_(pa.string())),
        "city": pa.array(["Rome", None, "Rome", "Rome"]),
        "age": pa.array([30, None, None, 30]),
        "unused": pa.array([None, None, None, None]),
    }
    pq.write_table(pa.table(columns), path)
    only = settings(channels=[{"name": "u2i", "quota": 12}])
    write_candidates(CandidateJob(models=models, users=path, out=out, settings=only))
    frame, retriever = read(out), Retriever.open(models)
    features = {"history": histories[0], "city": "Rome", "age": 30}
    wanted = retriever.retrieve("u2i", features=features, k=12, exclude_seen=True)
    assert frame[frame["user_id"] == 1]["item_id"].tolist() == wanted["item_id"].tolist()
    known = retriever.retrieve("u2i", id=FIRST, k=13, exclude=["item 1 é"], exclude_seen=True)
    assert frame[frame["user_id"] == FIRST]["item_id"].tolist() == known["item_id"].tolist()[:12]
    assert sorted(frame["user_id"].unique()) == [1, FIRST]
    reasons = read(out, "rejected")
    assert reasons["reason"].tolist() == ["unknown, and no features given", "no id"]


def test_features_may_come_before_what_is_stored(models: Path, tmp_path: Path) -> None:
    path, retriever = tmp_path / "users.parquet", Retriever.open(models)
    pq.write_table(pa.table({"user_id": [FIRST, FIRST + 1], "city": ["Lima", None]}), path)
    for prefer in (False, True):
        out = tmp_path / str(prefer)
        chosen = settings(
            channels=[{"name": "u2i", "quota": 12}], prefer_features=prefer, exclude_seen=False
        )
        write_candidates(CandidateJob(models=models, users=path, out=out, settings=chosen))
        frame = read(out)
        by_features = retriever.retrieve("u2i", features={"city": "Lima"}, k=12)
        stored = retriever.retrieve("u2i", id=FIRST, k=12)
        wanted = by_features if prefer else stored
        assert by_features["item_id"].tolist() != stored["item_id"].tolist()
        assert frame["item_id"].tolist()[:12] == wanted["item_id"].tolist()
        other = retriever.retrieve("u2i", id=FIRST + 1, k=12)
        assert frame["item_id"].tolist()[12:] == other["item_id"].tolist()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_blocked_and_filtered_items_are_no_candidates(
    models: Path, users: Path, tmp_path: Path, suffix: str
) -> None:
    blocked = pd.DataFrame({"item_id": [f"item {row} é" for row in range(9)] + ["unknown"]})
    block, out = tmp_path / f"block.{suffix}", tmp_path / "out"
    if suffix == "csv":
        blocked.to_csv(block, index=False)
    else:
        blocked.to_parquet(block)
    where = {"not": {"column": "tags", "equals": "group 1"}}
    chosen = settings(where=where, exclude_seen=False, k=10)
    job = CandidateJob(models=models, users=users, block=block, out=out, settings=chosen)
    assert write_candidates(job)["candidates"]["rows"] == 600
    found = {int(item.split()[1]) for item in read(out)["item_id"]}
    assert found == {row for row in range(9, 40) if row % 4 != 1}


def test_audiences_are_the_users_that_an_item_matches(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "items.parquet", tmp_path / "out"
    pq.write_table(pa.table({"item_id": ["item 7 é", "nothing", "item 2 é"]}), path)
    chosen = settings(audience_k=6)
    job = CandidateJob(models=models, items=path, out=out, settings=chosen)
    assert write_candidates(job)["audiences"]["rejected"] == 1
    frame, retriever = read(out, "audiences"), Retriever.open(models)
    assert list(frame) == ["item_id", "user_id", "score", "rank", "version"]
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    for item in ("item 7 é", "item 2 é"):
        wanted = retriever.retrieve("i2u", id=item, k=6, exclude_seen=True)
        mine = frame[frame["item_id"] == item]
        assert mine["user_id"].tolist() == wanted["user_id"].tolist()
        np.testing.assert_allclose(mine["score"], wanted["score"], rtol=1e-5, atol=1e-7)


def test_no_users_give_a_table_without_rows(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64())}), path)
    assert (
        write_candidates(CandidateJob(models=models, users=path, out=out))["candidates"]["rows"]
        == 0
    )
    table = pq.read_table(out / "candidates")
    assert (table.num_rows, table.column_names) == (0, COLUMNS)
    assert (out / "manifest.json").exists()


def test_a_finished_job_is_left_as_it_is_and_a_lost_shard_is_written_again(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    totals, before = write_candidates(job), rows_of(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert write_candidates(job) == totals
    assert {path: path.stat().st_mtime_ns for path in times} == times
    shards = sorted((out / "candidates").iterdir())
    shards[2].unlink()
    shards[3].write_bytes(shards[3].read_bytes()[:-5])
    middle = shards[5].read_bytes()
    shards[5].write_bytes(middle[:100] + bytes([middle[100] ^ 1]) + middle[101:])
    assert write_candidates(job) == totals
    assert rows_of(out) == before
    written = {path.name for path in shards if path.stat().st_mtime_ns != times[path]}
    assert written == {shards[place].name for place in (2, 3, 5)}


def test_another_job_is_refused_unless_it_starts_over(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, version=2, settings=settings())
    write_candidates(job)
    before = rows_of(out)
    pq.write_table(pa.table({"user_id": [FIRST]}), users / "c.parquet")
    other = dataclasses.replace(job, version=1, settings=settings(k=9))
    with pytest.raises(ConfigError) as error:
        write_candidates(other)
    for text in ("version: begun with 2, received 1", "settings.k: begun with 12", "--again"):
        assert text in str(error.value)
    assert rows_of(out) == before
    write_candidates(other, again=True)
    assert len(read(out)) == 61 * 9


def test_a_folder_with_something_else_is_left_alone(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / ".notes.json.old").write_text("mine")
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    for again in (False, True):
        with pytest.raises(ConfigError, match="expected an empty folder"):
            write_candidates(job, again=again)
    assert [path.name for path in out.iterdir()] == [".notes.json.old"]
    with pytest.raises(ConfigError, match="expected a folder, received a file"):
        write_candidates(dataclasses.replace(job, out=out / ".notes.json.old"))


def test_one_process_at_a_time_writes_to_a_folder(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    with locked(out / ".lock"), pytest.raises(ConfigError, match="another process writes to it"):
        write_candidates(job)


def test_what_a_killed_process_left_is_removed(models: Path, users: Path, tmp_path: Path) -> None:
    """Also rejected rows of a shard that was not finished, when another job takes over."""
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    write_candidates(job)
    for path in [*out.glob("candidates/part-*"), out / "manifest.json"]:
        path.unlink()
    (out / "candidates" / ".part-00000.parquet.abc").write_text("half")
    (out / ".job.json.abc").write_text("half")
    (out / "rejected" / ".candidates-00000.parquet.abc").write_text("half")
    known = tmp_path / "known.parquet"
    pq.write_table(pa.table({"user_id": [FIRST]}), known)
    write_candidates(dataclasses.replace(job, users=known))
    assert len(read(out)) == 12
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        *(".lock", "job.json", "manifest.json", "part-00000.parquet"),
    ]


@pytest.mark.parametrize(
    ("columns", "changes", "kind", "message"),
    [
        ({"id": [1]}, {}, ConfigError, "expected a column 'user_id' of ids"),
        ({"user_id": ["a"]}, {}, DataError, "column 'user_id': expected integers"),
        ({"user_id": [1.5]}, {}, DataError, "column 'user_id': expected integers"),
        ({"user_id": [1], "age": ["x"]}, {}, DataError, "column 'age': expected numbers"),
        ({"user_id": [1], "history": ["x"]}, {}, DataError, "'history': expected lists"),
        ({"user_id": [1]}, {"where": {"column": "x"}}, QueryError, "expected one of the keys"),
    ],
)
def test_what_cannot_work_is_refused(
    models: Path, tmp_path: Path, columns: Any, changes: Any, kind: Any, message: str
) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(pa.table(columns), path)
    job = CandidateJob(models=models, users=path, out=out, settings=settings(**changes))
    with pytest.raises(kind, match=message):
        write_candidates(job)
    pq.write_table(pa.table({"user_id": [FIRST]}), path)  # nothing is in the way once it is mended
    assert (
        write_candidates(dataclasses.replace(job, settings=settings()))["candidates"]["rows"] == 12
    )


def test_nothing_to_do_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--users, --items or both"):
        write_candidates(CandidateJob(models=models, out=tmp_path / "out"))


def test_results_come_in_order_and_a_failure_ends_all() -> None:
    def slow(number: int) -> int:
        time.sleep(random.random() / 200)
        if number == 15:
            raise DataError("15")
        return number

    taken = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    found = []
    with (
        pytest.raises(DataError, match="15"),
        candidates_module._ahead(slow, numbers(), workers=2) as results,
    ):
        for number in results:
            found.append(number)
            assert len(taken) <= len(found) + 3
    assert found == list(range(15))


@pytest.mark.slow
def test_a_job_killed_at_any_moment_gives_the_same_rows(models: Path, tmp_path: Path) -> None:
    users, killed, whole = tmp_path / "users.parquet", tmp_path / "killed", tmp_path / "whole"
    config = tmp_path / "settings.toml"
    ids = np.tile(np.arange(FIRST, FIRST + 61), 100)  # one of them is unknown
    pq.write_table(pa.table({"user_id": ids}), users)
    config.write_text("k = 20\nshard_size = 100\nbatch_size = 30\nneighbours = 9\n")

    def start(out: Path) -> subprocess.Popen[bytes]:
        args = ["candidates", models, "--users", users, "--out", out, "--config", config]
        command = "import pipelines.cli; pipelines.cli.main()"
        return subprocess.Popen(
            [sys.executable, "-c", command, *map(str, args)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": "."},
        )

    rng, n_killed = random.Random(0), 0
    for _ in range(4):
        process = start(killed)
        before = len(list(killed.glob("candidates/part-*")))
        wanted = before + rng.randrange(1, 12)
        while process.poll() is None and len(list(killed.glob("candidates/part-*"))) < wanted:
            time.sleep(0.002)
        time.sleep(rng.random() / 20)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            n_killed += process.wait() == -signal.SIGKILL
            assert not (killed / "manifest.json").exists()
    assert n_killed == 4
    assert start(killed).wait() == 0
    assert start(whole).wait() == 0
    assert rows_of(killed) == rows_of(whole)
    assert sum(map(len, rows_of(whole).values())) == 60 * 100 * 20 + 100
    manifests = [json.loads((out / "manifest.json").read_text()) for out in (killed, whole)]
    assert manifests[0] | {"created": ""} == manifests[1] | {"created": ""}
    assert not list(killed.glob("*/.part*"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command in this process; its exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def answer(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fm-recall", "candidates", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return answer


def test_command_writes_and_says_what(models: Path, users: Path, tmp_path: Path, call: Any) -> None:
    out = tmp_path / "out"
    args = [models, "--users", users, "--out", out, "-k", 10, "--channels", "popularity=2,u2i=5"]
    code, text, errors = call(*args, "--where", '{"column": "tags", "equals": "any"}')
    assert (code, errors) == (0, "")
    for part in ("candidates: 61 users", "popularity 120, u2i 480", "rejected", "manifest.json"):
        assert part in text
    frame = read(out)
    assert frame["channel"].tolist()[:10] == ["popularity"] * 2 + ["u2i"] * 8
    code, _, errors = call(*args, "-k", 11)
    assert code == 2
    assert "settings.k: begun with 10, received 11" in errors


def test_command_reads_its_settings_from_a_file(
    models: Path, users: Path, tmp_path: Path, call: Any
) -> None:
    config, out = tmp_path / "candidates.toml", tmp_path / "out"
    config.write_text("k = 5\n")
    assert call(models, "--users", users, "--out", out, "--config", config, "--version", 1)[0] == 0
    assert set(read(out)["version"]) == {1}
    assert len(read(out)) == 60 * 5
    config.write_text("kk = 5\n")
    code, _, errors = call(models, "--users", users, "--out", tmp_path / "b", "--config", config)
    assert code == 2
    assert "kk: unknown key" in errors
    assert not (tmp_path / "b").exists()
