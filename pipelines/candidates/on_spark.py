"""Write candidates on Spark: a task a shard, with the rows that this process would write.

Tasks read their rows of the input and write their shard to a staging folder. The driver, which
holds the folder of the job, takes over each shard when its task has ended, so that nothing that a
lost task or machine does can be seen there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.candidates.blocklist import read_block, remove_blocked
from pipelines.candidates.settings import load_settings
from pipelines.candidates.shards import Output
from pipelines.candidates.write_candidates import (
    Engine,
    Missing,
    Task,
    make_task,
    write_here,
    write_stretch,
)
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.progress import Reporter
from pipelines.spark.session import check_spark, open_session
from pipelines.spark.tasks import Outcome, run_tasks
from serving.retrieval.parts import Parts
from serving.version.manifest import MANIFEST, FileRecord
from serving.version.store import open_bundle
from towers.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def open_engine(name: str, *, master: str | None) -> Iterator[Engine]:
    """Choose the engine, `local` or `spark`; Spark starts when there is something to write.

    Raises:
        ConfigError: there is no such engine, or Spark cannot run here.
    """
    if name not in {"local", "spark"}:
        raise ConfigError(f"--engine: expected local or spark, received {name!r}")
    if name == "local":
        if master is not None:
            raise ConfigError(f"--master: received {master!r}; expected with --engine spark only")
        yield write_here
        return
    check_spark()
    with ExitStack() as stack:

        @cache
        def start(reporter: Reporter) -> SparkSession:
            with reporter.stage("Spark: start"):
                return stack.enter_context(open_session(master))

        yield lambda missing, reporter: write_on_spark(missing, reporter, session=start(reporter))


def write_on_spark(missing: Missing, reporter: Reporter, *, session: SparkSession) -> None:
    """Write missing shards on Spark.

    Raises:
        EngineError: Spark gave up.
        RecallError: a worker cannot read what the job was started with.
    """
    task, output = missing.task, missing.output
    with output.staging() as staged, missing.progress(reporter) as advance:
        write = WriteShard.of(missing, staging=staged.root)
        for shard, _ in run_tasks(session, write, missing.shards):
            output.adopt(staged, task.table, shard)
            advance(sum(task.sizes(shard)))


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """Writes one shard to a staging folder; paths are absolute, and the same on every machine."""

    bundle: Path
    table: str
    source: Path
    """The table of users or items."""
    block: Path | None
    staging: Path
    job: str
    """The job as JSON; see `Output.job`."""

    @classmethod
    def of(cls, missing: Missing, *, staging: Path) -> WriteShard:
        """What writes the shards that are missing.

        Raises:
            ConfigError: there is no table to read.
        """
        job, table = missing.job, missing.task.table
        source = job.users if table == "candidates" else job.items
        if source is None:
            raise ConfigError(f"{table}: expected a table to read, received none")
        return cls(
            bundle=missing.bundle.path.absolute(),
            table=table,
            source=source.absolute(),
            block=None if job.block is None else job.block.absolute(),
            staging=staging.absolute(),
            job=json.dumps(missing.output.job),
        )

    def __call__(self, number: int) -> Outcome:
        """Write the shard of this number.

        Raises:
            RecallError: what is read here is not what the job was started with.
        """
        if not self.staging.is_dir():
            raise ConfigError(
                f"{self.staging}: expected the folder to write to, received none; the paths of the "
                "models, the input and --out must lead every machine to the same shared storage"
            )
        output = Output(self.staging, json.loads(self.job))
        write_stretch(open_task(self), output, shards=[number], advance=lambda _: None)
        return {}


@lru_cache(maxsize=1)
def open_task(write: WriteShard) -> Task:
    """Open the table to write; the last one stays open in a worker, which Spark keeps for many.

    Raises:
        RecallError: what is read here is not what the job was started with.
    """
    name = "users" if write.table == "candidates" else "items"
    files = SourceFiles.open(write.source, name=name)
    described = json.loads(write.job)
    _check_input(write.source, files, described["inputs"][write.table])
    parts = _open_parts(write.bundle, write.block, write.job)
    settings = load_settings(None, changes=described["settings"])
    task = make_task(write.table, files, parts=parts, settings=settings)
    task.load()
    return task


@lru_cache(maxsize=1)
def _open_parts(bundle: Path, block: Path | None, job: str) -> Parts:
    """Read the version, without the items of the block list; both tables of a job share it."""
    described = json.loads(job)
    opened = open_bundle(bundle)
    _check_same(bundle / MANIFEST, described["bundle"])
    parts = Parts(opened)
    if block is not None:
        blocked = read_block(block)
        for shard, digest in zip(blocked.read(0, 0).shards, described["block"], strict=True):
            _check_same(Path(shard.file), digest)
        settings = load_settings(None, changes=described["settings"])
        remove_blocked(parts, blocked, settings.plan)
    return parts


def _check_same(path: Path, sha256: str) -> None:
    """Refuse a file that differs from what the job was started with."""
    received = FileRecord.of(path).sha256
    if received != sha256:
        raise DataError(
            f"{path}: expected sha256 {sha256}, as where the job was started, received {received}; "
            "give every machine the same files"
        )


def _check_input(source: Path, files: SourceFiles, described: list[dict[str, Any]]) -> None:
    """Refuse an input whose files differ in name or size; their checksums would take long."""
    wanted = [(file["name"], file["bytes"]) for file in described]
    received = [(path.name, path.stat().st_size) for path in files.paths]
    if received != wanted:
        raise DataError(
            f"{source}: expected files of these names and bytes, as where the job was started: "
            f"{wanted}; received {received}; give every machine the same files"
        )
