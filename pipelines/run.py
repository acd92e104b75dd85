"""Run: the whole offline job, from tables to published versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from pipelines.config import RunConfig
from pipelines.data.engines import Plan, choose_engine
from pipelines.data.frame_digest import digest
from pipelines.data.prepare import Prepared, prepare
from pipelines.job_folder import N_SHOWN, Job, JobFolder, find_unfinished, fingerprint
from pipelines.progress import Reporter
from pipelines.publishing.publish_rounds import Rounds
from pipelines.reporting.shown_results import ShownResults
from pipelines.results import Results, Rule
from pipelines.tracking import open_tracking
from pipelines.training.parent import Parent, continued, read_parent
from pipelines.training.refit_on_all import RoundFits
from pipelines.workers.cluster import join, read_cluster
from pipelines.workers.workers import Workers
from serving.retrieval.fresh.journal import FOLDER
from serving.retrieval.fresh.note_changes import note_changes
from serving.version.store import Store
from serving.version.tables_read import TABLES_READ, TablesRead
from towers.environment import cluster_text
from towers.errors import BundleError, ConfigError

FRAMES = ("interactions", "users", "items", "test")
"""The tables that the Python API takes as DataFrames."""

PREPARED = "prepared"
"""The folder in a run's work folder that keeps the tables once they are split."""

QUARANTINE = "quarantine"
"""The folder in the models directory for rows that were set aside."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """How the versions of a run come to be served."""

    journals: Sequence[Path] | TablesRead | None = None
    """The folders in which servers keep fresh users and items; default: `journal` in the models
    directory. The versions published supersede what these hold when the tables are read. Of
    DataFrames, what `note_changes` said just before they were read; without it, their versions
    supersede nothing."""
    promote: Rule = "not-worse"
    """What makes a version of the run current."""


def run(
    config: RunConfig,
    out: str | Path,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    reporter: Reporter | None = None,
    from_version: int | None = None,
    engine: str | None = None,
    master: str | None = None,
    release: Release | None = None,
) -> Results:
    """Read, split, fit, mine, refit, evaluate, export and publish below the folder `out`.

    Where `TF_CONFIG` describes several workers, they train together, and worker 0 does all else;
    every one of them has to call it, and gets its results. See docs/several-workers.md.

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
        release: what is said of the servers of `out`.

    Raises:
        BundleError: the version to continue from is missing or damaged.
        ConfigError: the configuration does not fit the tables, or that version; or another process
            is at work on the same run.
        DataError: rows break the rules of their table.
        EngineError: another worker is gone.
        RecallGateError: an index does not reach the recall that publishing needs.
        TrainingError: training diverged.
    """
    _check_frames(frames)
    out, reporter = Path(out), reporter or Reporter()
    if frames is not None:
        engine = engine or "memory"
    plan = choose_engine(config, asked=engine, master=master)
    workers = join(read_cluster(cluster_text()), reporter.say)
    job = identify(config, frames=frames) | {"from_version": from_version}
    folder = JobFolder(path=out / f".run-{fingerprint(job)[:16]}", job=job)
    parent = None
    with workers.together():
        workers.check_same_job(fingerprint(job))
        if from_version is not None:
            parent = read_parent(Store(out), from_version, config=config)
            config = continued(config, parent)
        if not workers.is_chief:
            return _follow(config, folder.path, workers=workers, parent=parent, reporter=reporter)
        tracked = open_tracking(
            config.tracking,
            name=config.name,
            work=folder.path,
            say=reporter.say,
            others=reporter.trackers,
        )
        with folder.claim() as resumed, tracked as reporter.tracking:
            if resumed:
                reporter.say(f"Going on with the interrupted run in {out}")
            _say_unfinished(out, job, reporter)
            release = release or Release()
            prepared = _prepare(
                config,
                folder,
                frames=frames,
                plan=plan,
                parent=parent,
                release=release,
                reporter=reporter,
            )
            rounds = Rounds(
                config,
                prepared,
                store=Store(out),
                work=folder.path,
                reporter=reporter,
                parent=parent,
                promote=release.promote,
                workers=workers,
            )
            results = rounds.run()
            folder.remove()
        workers.tell({"results": results})
    return cast("Results", ShownResults(results))


def _prepare(
    config: RunConfig,
    folder: JobFolder,
    *,
    frames: Mapping[str, pd.DataFrame] | None,
    plan: Plan,
    parent: Parent | None,
    release: Release,
    reporter: Reporter,
) -> Prepared:
    """Read and split the tables, or load what an interrupted run has made of them."""
    kept, out = folder.path / PREPARED, folder.path.parent
    if kept.exists():
        with reporter.stage("load prepared tables"):
            return Prepared.load(kept)
    noted = _note(release.journals, frames, out=out, reporter=reporter)
    _keep(noted, folder.path / TABLES_READ)
    try:
        return prepare(
            config,
            kept,
            frames=frames,
            plan=plan,
            quarantine_dir=out / QUARANTINE,
            trained_on=parent.trained_on if parent else None,
            reporter=reporter,
        )
    finally:
        if not kept.exists():  # what was not read leaves nothing behind
            (folder.path / TABLES_READ).unlink(missing_ok=True)


def _follow(
    config: RunConfig, work: Path, *, workers: Workers, parent: Parent | None, reporter: Reporter
) -> Results:
    """Train a share of every batch of the fits of the chief, which does all else; its results.

    Raises:
        ConfigError: the folder in which the chief works is not seen from here.
    """
    fits = None
    while "results" not in (told := workers.tell()):
        if fits is None:
            if not (work / PREPARED).exists():
                raise ConfigError(
                    f"{work}: expected the folder in which worker 0 works, received nothing there; "
                    "give all workers the same models directory, on a file system that they share"
                )
            prepared = Prepared.load(work / PREPARED)
            fits = RoundFits(
                config,
                prepared,
                store=Store(work.parent),
                work=work,
                reporter=reporter,
                parent=parent,
                workers=workers,
            )
        fits.follow(told)
    return cast("Results", ShownResults(told["results"]))


def _note(
    journals: Sequence[Path] | TablesRead | None,
    frames: Mapping[str, pd.DataFrame] | None,
    *,
    out: Path,
    reporter: Reporter,
) -> TablesRead | None:
    """Note what the journals hold before the tables are read; None where that is not known.

    Raises:
        ConfigError: there is no such folder.
    """
    if isinstance(journals, TablesRead) or frames is not None:
        return journals if isinstance(journals, TablesRead) else None
    for folder in journals or ():
        if not folder.is_dir():
            raise ConfigError(
                f"--journal: expected the folder in which a server keeps fresh users and items, "
                f"received {folder}, which is none; check the path"
            )
    try:
        return note_changes([out / FOLDER] if journals is None else journals)
    except BundleError as error:
        reporter.say(
            f"{error}; so what was put into it counts in the versions of this run, also where "
            "the tables are newer"
        )
        return None


def _keep(tables_read: TablesRead | None, path: Path) -> None:
    """Keep it until the versions are published, however often the run is interrupted."""
    if tables_read is None:
        path.unlink(missing_ok=True)
    else:
        tables_read.write(path)


def _say_unfinished(out: Path, job: Job, reporter: Reporter) -> None:
    """Name the other runs below `out` that were killed, and what they were begun with."""
    for path in find_unfinished(out, ".run-*"):
        lines = JobFolder(path=path, job=job).differences()
        reporter.say(
            f"{path}: keeps an unfinished run, to be gone on with or removed"
            + "".join(f"\n  {line}" for line in lines[:N_SHOWN])
        )


def _check_frames(frames: Mapping[str, pd.DataFrame] | None) -> None:
    """Refuse DataFrames without interactions, or by other names."""
    if frames is not None and not {FRAMES[0]} <= set(frames) <= set(FRAMES):
        raise ConfigError(
            f"frames: expected {FRAMES[0]!r}, and maybe others of {list(FRAMES)}, received "
            f"{list(frames)}; rename them"
        )


def identify(
    config: RunConfig,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    without: Sequence[str] = ("index", "export", "tracking", "rank"),
) -> Job:
    """Say what the fits of a run depend on: its settings, and its input.

    The settings of index, export and rank do not count: they may change after the recall gate has
    refused to publish, and the fits go on to serve. Nor does it matter who is told.
    """
    settings = dataclasses.asdict(config)
    job: Job = {name: value for name, value in settings.items() if name not in without}
    if frames is None:
        stats = {str(path): path.stat() for path in input_files(config)}
        job["files"] = {
            name: f"{stat.st_size} bytes, modified {stat.st_mtime_ns}"
            for name, stat in stats.items()
        }
        return job
    job["frames"] = {name: digest(frame) for name, frame in frames.items()}
    return job


def input_files(config: RunConfig) -> list[Path]:
    """The files that the tables are read from, those that exist."""
    data = config.data
    tables: list[Any] = [*data.tables, data.users, data.items, config.split.test]
    paths = [Path(table.path) for table in tables if table is not None and table.path]
    shards = [sorted(path.iterdir()) if path.is_dir() else [path] for path in paths]
    return [path for group in shards for path in group if path.is_file()]
