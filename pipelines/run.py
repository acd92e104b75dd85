"""Run: the whole offline job, from tables to published versions."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.config import ExportConfig, IndexConfig, RunConfig
from pipelines.data.engines import choose_engine
from pipelines.data.prepare_job import check_engine, prepare_in
from pipelines.progress import Reporter
from pipelines.publishing.rounds import Rounds
from pipelines.results import Results
from pipelines.training.parent import continued, read_parent
from serving.atomic import locked
from serving.version.store import Store
from towers.errors import ConfigError, TrainingError

FRAMES = ("interactions", "users", "items", "test")
"""The tables that the Python API takes as DataFrames."""


def run(
    config: RunConfig,
    out: str | Path,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    reporter: Reporter | None = None,
    from_version: int | None = None,
    engine: str | None = None,
    master: str | None = None,
) -> Results:
    """Read, split, fit, mine, refit, evaluate, export and publish below the folder `out`.

    Interrupted, the same call goes on from the last finished epoch or stage. Published versions
    are never touched.

    From an earlier version, the run is one short round: old tokens keep their rows and start from
    their vectors, new ones get rows, the earlier version mines the negatives, and what it was
    trained on is not held out. See docs/continue.md.

    Args:
        config: tables, schema and settings.
        out: the models directory; made if need be.
        frames: `interactions` and maybe `users`, `items` and `test`, in place of files.
        reporter: shows progress; silent by default.
        from_version: the version below `out` to continue from.
        engine: where the tables are read, checked and split: `memory`, `disk`, or `spark` with the
            cluster of `master`. Default: on disk where there are many interactions in Parquet.
        master: the URL of a Spark cluster, or local[n].

    Raises:
        BundleError: the version to continue from is missing or damaged.
        ConfigError: the configuration does not fit the tables, or that version.
        DataError: rows break the rules of their table.
        RecallGateError: an index does not reach the recall that publishing needs.
        TrainingError: training diverged, or the same run is going on elsewhere.
    """
    _check_frames(frames)
    out, reporter = Path(out), reporter or Reporter()
    if frames is not None:
        engine = engine or "memory"
    chosen = choose_engine(config, asked=engine, master=master)
    check_engine(chosen, frames=frames)
    work = out / f".run-{_fingerprint(config, frames, from_version)}"
    parent = None
    if from_version is not None:
        parent = read_parent(Store(out), from_version, config=config)
        config = continued(config)
    with _claimed(work):
        if work.exists():
            reporter.say(f"Going on with the interrupted run in {out}")
        prepared = prepare_in(
            work,
            config,
            frames=frames,
            trained_on=parent.trained_on if parent else None,
            engine=chosen,
            master=master,
            reporter=reporter,
        )
        rounds = Rounds(
            config, prepared, store=Store(out), work=work, reporter=reporter, parent=parent
        )
        results = rounds.run()
        _remove(work)
    return results


@contextmanager
def _claimed(work: Path) -> Iterator[None]:
    """Keep other processes from the same run; a folder that it made and left empty is removed.

    Raises:
        TrainingError: another process has it.
    """
    out, lock = work.parent, work.with_suffix(".lock")
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    with locked(lock, wait=False) as held:
        if not held:
            raise TrainingError(
                f"{out}: the same run is going on in another process; wait for it, or name "
                "another models directory"
            )
        try:
            yield
        finally:
            if not work.exists():
                lock.unlink()
                if not was_there and not any(out.iterdir()):
                    out.rmdir()


def _check_frames(frames: Mapping[str, pd.DataFrame] | None) -> None:
    """Refuse DataFrames without interactions, or by other names."""
    if frames is not None and not {FRAMES[0]} <= set(frames) <= set(FRAMES):
        raise ConfigError(
            f"frames: expected {FRAMES[0]!r}, and maybe others of {list(FRAMES)}, received "
            f"{list(frames)}; rename them"
        )


def _remove(work: Path) -> None:
    """Remove the work folder; renamed first, so that no run goes on with half of one."""
    done = work.with_suffix(".done")
    shutil.rmtree(done, ignore_errors=True)
    work.rename(done)
    shutil.rmtree(done)


def _fingerprint(
    config: RunConfig, frames: Mapping[str, pd.DataFrame] | None, from_version: int | None
) -> str:
    """Name a run by its settings and its input, so that only the same run is resumed.

    The settings of index and export do not count: they may change after the recall gate has
    refused to publish, and the fits go on to serve.
    """
    fitted = dataclasses.replace(config, index=IndexConfig(), export=ExportConfig())
    digest = hashlib.sha256(fitted.fingerprint().encode())
    if from_version is not None:
        digest.update(f"from {from_version}".encode())
    for name, frame in (frames or {}).items():
        text = frame.to_json(orient="split", double_precision=15, default_handler=str)
        digest.update(f"{name}{text}".encode())
    if frames is None:
        for path in input_files(config):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def input_files(config: RunConfig) -> list[Path]:
    """The files that the tables are read from, those that exist."""
    data = config.data
    tables: list[Any] = [data.interactions, data.users, data.items, config.split.test]
    paths = [Path(table.path) for table in tables if table is not None and table.path]
    shards = [sorted(path.iterdir()) if path.is_dir() else [path] for path in paths]
    return [path for group in shards for path in group if path.is_file()]
