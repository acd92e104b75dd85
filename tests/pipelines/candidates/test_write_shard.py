"""What a Spark worker does, called without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import table

from pipelines.candidates.on_spark import WriteShard, open_task
from pipelines.candidates.settings import load_settings
from pipelines.candidates.write_candidates import CandidateJob, Missing, write_candidates
from pipelines.progress import Reporter
from towers.errors import ConfigError, DataError

FIRST = 2**40


@pytest.fixture
def job(models: Path, tmp_path: Path) -> CandidateJob:
    """Three shards; in the second one, a user is unknown. An item is blocked."""
    users, block = tmp_path / "users.parquet", tmp_path / "block.parquet"
    pq.write_table(table({"user_id": [FIRST, FIRST + 1, 5, FIRST + 3, FIRST + 4]}), users)
    pq.write_table(table({"item_id": ["item 3 é"]}), block)
    changes = {"k": 9, "shard_size": 2, "channels": [{"name": "u2i", "quota": 9}]}
    where = {"column": "tags", "equals": "any"}
    settings = load_settings(None, changes=changes | {"where": where})
    return CandidateJob(
        models=models, out=tmp_path / "out", users=users, block=block, settings=settings
    )


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    paths = sorted(out.glob("*/*.parquet"))
    return {str(path.relative_to(out)): pq.read_table(path).to_pylist() for path in paths}


def write(missing: Missing, _: Reporter) -> None:
    """An engine that has a worker's task write, and takes over what it wrote."""
    with missing.output.staging() as staged:
        task = WriteShard.of(missing, staging=staged.root)
        assert [task(number) for number in missing.shards] == [{} for _ in missing.shards]
        assert not any(missing.output.path("candidates", n).exists() for n in missing.shards)
        for number in missing.shards:
            missing.output.adopt(staged, "candidates", number)


def test_workers_write_the_rows_of_the_local_engine(job: CandidateJob, tmp_path: Path) -> None:
    here = CandidateJob(**vars(job) | {"out": tmp_path / "here"})
    assert write_candidates(job, engine=write) == write_candidates(here)
    assert rows_of(job.out) == rows_of(here.out)
    assert set(rows_of(job.out)) == {
        *(f"candidates/part-0000{n}.parquet" for n in range(3)),
        "rejected/candidates-00001.parquet",
    }
    (job.out / "candidates" / "part-00001.parquet").unlink()
    (job.out / "rejected" / "candidates-00001.parquet").unlink()
    shards: list[int] = []

    def again(missing: Missing, reporter: Reporter) -> None:
        shards.extend(missing.shards)
        write(missing, reporter)

    write_candidates(job, engine=again)
    assert shards == [1]
    assert rows_of(job.out) == rows_of(here.out)


def test_worker_opens_a_table_once(job: CandidateJob, tmp_path: Path) -> None:
    def engine(missing: Missing, reporter: Reporter) -> None:
        first, second = (WriteShard.of(missing, staging=tmp_path) for _ in range(2))
        assert open_task(first) is open_task(second)
        write(missing, reporter)

    write_candidates(job, engine=engine)


def test_shards_that_are_left_are_not_taken_for_written(job: CandidateJob) -> None:
    with pytest.raises(DataError, match="a shard is missing"):
        write_candidates(job, engine=lambda missing, reporter: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("input", "users.parquet: expected files of these names and bytes"),
        ("block", "block.parquet: expected sha256"),
        ("staging", "expected the folder to write to"),
    ],
)
def test_other_files_than_where_the_job_was_started_are_refused(
    job: CandidateJob, change: str, message: str
) -> None:
    def engine(missing: Missing, _: Reporter) -> None:
        if change == "input":
            pq.write_table(table({"user_id": [FIRST] * 999}), job.users)
        if change == "block":
            pq.write_table(table({"item_id": ["item 4 é"]}), job.block)
        with missing.output.staging() as staged:
            folder = staged.root / "gone" if change == "staging" else staged.root
            WriteShard.of(missing, staging=folder)(0)

    with pytest.raises(ConfigError if change == "staging" else DataError, match=message):
        write_candidates(job, engine=engine)
