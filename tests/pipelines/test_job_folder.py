from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.job_folder import JOB, LOCK, Job, JobFolder, find_unfinished, fingerprint
from serving.atomic import locked, write_text_atomic
from towers.errors import ConfigError

SETTINGS: Job = {"seed": 3, "training": {"epochs": (1, 2), "l2": None}}


def folder(path: Path, **changes: object) -> JobFolder:
    return JobFolder(path=path, job=SETTINGS | changes)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_same_job_goes_on_and_another_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "job"
    with folder(path).claim() as resumed:
        assert not resumed
        (path / "shard").write_text("1")
    assert folder(path).differences() == []
    with folder(path).claim() as resumed:
        assert resumed
    other = folder(path, training={"epochs": [1, 3], "l2": 0.1}, mode="new")
    expected = [
        "training.epochs: begun with [1, 2], received [1, 3]",
        "training.l2: begun with null, received 0.1",
        'mode: begun with null, received "new"',
    ]
    assert other.differences() == expected
    for refuse in (other.check, other.claim().__enter__):
        with pytest.raises(ConfigError, match="job: expected the job that was begun") as error:
            refuse()
        assert all(line in str(error.value) for line in expected)
    assert names(path) == [LOCK, JOB, "shard"]


def test_another_job_may_take_a_folder_without_results_or_start_over(tmp_path: Path) -> None:
    path = tmp_path / "job"

    def kept(seed: int) -> JobFolder:
        return JobFolder(
            path=path, job={"seed": seed}, results="*/part-*", names=("manifest", "rows")
        )

    with kept(1).claim():
        (path / "rows").mkdir()
        (path / "manifest").touch()
    with kept(2).claim():
        assert names(path) == [LOCK, JOB]
        (path / "rows").mkdir()
        (path / "rows" / "part-0").touch()
        (path / "notes").touch()  # of somebody else
    with pytest.raises(ConfigError, match="seed: begun with 2, received 3"):
        kept(3).claim().__enter__()
    with kept(3).claim(again=True) as resumed:
        assert resumed  # the notes
        assert names(path) == [LOCK, JOB, "notes"]
    assert json.loads((path / JOB).read_text()) == {"seed": 3}


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with folder(tmp_path / "job").claim():
        for other in (folder(tmp_path / "job"), folder(tmp_path / "job", seed=4)):
            with pytest.raises(ConfigError, match="job: another process works on the job in this"):
                other.claim().__enter__()
        assert names(tmp_path / "job") == [LOCK, JOB]


def test_a_folder_whose_holder_removes_it_meanwhile_is_not_claimed(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "job"), folder(tmp_path / "job")
    with first.claim(), (tmp_path / "job" / LOCK).open("ab"):
        (tmp_path / "job" / "work").touch()
        first.remove()
        with second.claim() as resumed:
            assert not resumed
            (tmp_path / "job" / "work").touch()
    assert names(tmp_path / "job") == [LOCK, JOB, "work"]


def test_a_job_that_leaves_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder(tmp_path / "new" / "job").claim():
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with folder(tmp_path / "mine").claim():
        pass
    assert names(tmp_path / "mine") == []
    with folder(tmp_path / "new" / "job").claim():
        (tmp_path / "new" / "job" / "work").touch()
        folder(tmp_path / "new" / "job").remove()
        (tmp_path / "new" / "outcome").touch()
    assert names(tmp_path / "new") == ["outcome"]


def test_a_file_or_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".notes").write_text("mine")
    for job in (folder(tmp_path), folder(tmp_path, seed=4)):
        for refuse in (job.check, job.claim().__enter__, job.claim(again=True).__enter__):
            with pytest.raises(ConfigError, match=r"with other files, such as \.notes; name"):
                refuse()
    with pytest.raises(ConfigError, match="expected a folder, received a file"):
        folder(tmp_path / ".notes").claim().__enter__()
    assert names(tmp_path) == [".notes"]


def test_a_damaged_job_is_said(tmp_path: Path) -> None:
    (tmp_path / JOB).write_text("{")
    with pytest.raises(ConfigError, match=r"job\.json: damaged: .*; remove the folder"):
        folder(tmp_path).check()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.job_folder import JobFolder
from serving.atomic import open_atomic

folder = JobFolder(path=Path(sys.argv[1]), job={"seed": 3})
with folder.claim():
    (folder.path / "done").touch()
    with open_atomic(folder.path / "deep.txt") as file:
        file.write("half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "job"
    command = [sys.executable, "-c", KILLED, str(path)]
    code = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": "."}).returncode
    assert code == -signal.SIGKILL
    assert len(names(path)) == 4
    with JobFolder(path=path, job={"seed": 3}).claim() as resumed:
        assert resumed
        assert names(path) == [LOCK, "done", JOB]


def test_folders_of_killed_jobs_are_found(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f".run-{name}").mkdir()
    (tmp_path / "..run-d.0123.partial" / "half").mkdir(parents=True)
    (tmp_path / ".run-e").touch()
    with locked(tmp_path / ".run-b" / LOCK):
        found = find_unfinished(tmp_path, ".run-*")
    assert [path.name for path in found] == [".run-a", ".run-c"]
    assert names(tmp_path) == [".run-a", ".run-b", ".run-c", ".run-e"]


def test_a_fingerprint_is_of_the_values_alone(tmp_path: Path) -> None:
    job = folder(tmp_path).job
    assert fingerprint(job) == fingerprint(folder(tmp_path / "other").job)
    assert fingerprint(job) != fingerprint(folder(tmp_path, seed=4).job)
    write_text_atomic(tmp_path / JOB, json.dumps(job))
    assert folder(tmp_path).differences() == []
