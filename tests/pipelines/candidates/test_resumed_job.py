"""The folder of a job: it goes on where it was, whatever ended it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.candidates.settings import load_settings
from pipelines.candidates.write_candidates import CandidateJob, write_candidates
from serving.atomic import locked
from tests.pipelines.candidates.job_support import FIRST, read, rows_of, settings
from towers.errors import ConfigError

pytestmark = pytest.mark.slow


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


def test_a_shard_that_was_damaged_before_the_job_ended_is_written_again(
    models: Path, users: Path, tmp_path: Path
) -> None:
    """Nothing says so but the checksums that were taken when it was written."""
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    totals, before = write_candidates(job), rows_of(out)
    (rejected,) = (out / "rejected").iterdir()
    rows = rejected.read_bytes()
    (out / "manifest.json").unlink()  # the job was killed just before
    whole, *_, lost = sorted((out / "candidates").iterdir())
    damaged = [rejected, *sorted((out / "candidates").iterdir())[2:4]]
    for path in damaged:
        content = path.read_bytes()
        path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    (out / ".records" / f"candidates-{lost.stem.removeprefix('part-')}.json").write_text("{")
    time_of_whole = whole.stat().st_mtime_ns
    assert write_candidates(job) == totals
    assert rows_of(out) == before
    assert rejected.read_bytes() == rows
    assert whole.stat().st_mtime_ns == time_of_whole


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
        with pytest.raises(ConfigError, match="expected a new or empty folder"):
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
    with (
        locked(out / ".lock"),
        pytest.raises(ConfigError, match="another process works on the job"),
    ):
        write_candidates(job)


def test_what_a_killed_process_left_is_removed(models: Path, users: Path, tmp_path: Path) -> None:
    """Also rejected rows of a shard that was not finished, when another job takes over."""
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    write_candidates(job)
    for path in [*out.glob("candidates/part-*"), *out.glob(".records/*"), out / "manifest.json"]:
        path.unlink()
    (out / "candidates" / ".part-00000.parquet.abc.partial").write_text("half")
    (out / ".job.json.abc.partial").write_text("half")
    (out / "rejected" / ".candidates-00000.parquet.abc.partial").write_text("half")
    known = tmp_path / "known.parquet"
    pq.write_table(pa.table({"user_id": [FIRST]}), known)
    write_candidates(dataclasses.replace(job, users=known))
    assert len(read(out)) == 12
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        *(".lock", "candidates-00000.json", "job.json", "manifest.json", "part-00000.parquet"),
    ]


def test_a_job_killed_at_any_moment_gives_the_same_rows(models: Path, tmp_path: Path) -> None:
    users, killed, whole = tmp_path / "users.parquet", tmp_path / "killed", tmp_path / "whole"
    config = tmp_path / "settings.toml"
    ids = np.tile(np.arange(FIRST, FIRST + 61), 100)  # one of them is unknown
    pq.write_table(pa.table({"user_id": ids}), users)
    config.write_text("k = 20\nshard_size = 100\nbatch_size = 30\nneighbours = 9\n")

    def start(out: Path) -> subprocess.Popen[bytes]:
        args = ["candidates", models, "--users", users, "--out", out, "--config", config]
        command = "import pipelines.cli.main; pipelines.cli.main.main()"
        return subprocess.Popen(
            [sys.executable, "-c", command, *map(str, args)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": "."},
        )

    rng, n_killed = random.Random(0), 0
    for _ in range(2):
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
    assert n_killed == 2
    for out in (killed, whole):
        job = CandidateJob(
            models=models, users=users, out=out, settings=load_settings(config, changes={})
        )
        write_candidates(job)
    assert rows_of(killed) == rows_of(whole)
    assert sum(map(len, rows_of(whole).values())) == 60 * 100 * 20 + 100
    manifests = [json.loads((out / "manifest.json").read_text()) for out in (killed, whole)]
    assert manifests[0] | {"created": ""} == manifests[1] | {"created": ""}
    assert not list(killed.glob("*/.part*"))
