"""The engine that writes candidates on Spark: a task a shard, with the rows of the local engine.

Tasks read their rows of the input and write their shard to a staging folder. The driver, which
holds the folder of the job, takes over what is finished, so that nothing that a lost task or
machine does can be seen there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.candidates.job import Engine, Missing, write_here
from pipelines.candidates.shards import Output
from pipelines.candidates.spark_worker import ShardWork, write_shards
from pipelines.progress import Reporter
from pipelines.spark.jobs import attend, raise_first
from pipelines.spark.session import check_spark, open_session
from towers.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

OUTCOME_COLUMNS = "number long, kind string, message string"
"""`OUTCOME` of a worker, in Spark's words."""


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
    work = shard_work(missing)
    left = set(missing.shards)
    with output.staging() as staged, missing.progress(reporter) as advance:

        def adopt() -> None:
            for shard in sorted(_finished(staged, task.table) & left):
                output.adopt(staged, task.table, shard)
                left.remove(shard)
                advance(sum(task.sizes(shard)))

        collect = partial(_collect, session, work, staging=staged.root.absolute())
        rows = attend(session, partial(collect, shards=missing.shards), meanwhile=adopt)
    raise_first(rows)


def shard_work(missing: Missing) -> ShardWork:
    """What workers need to know, with paths that do not depend on the folder they run in.

    Raises:
        ConfigError: there is no table of sources.
    """
    job, table = missing.job, missing.task.table
    source = job.users if table == "candidates" else job.items
    if source is None:
        raise ConfigError(f"{table}: expected a table to read, received none")
    return ShardWork(
        bundle=missing.bundle.path.absolute(),
        table=table,
        source=source.absolute(),
        block=None if job.block is None else job.block.absolute(),
        job=json.dumps(missing.output.job),
    )


def _collect(
    session: SparkSession, work: ShardWork, *, staging: Path, shards: list[int]
) -> list[Row]:
    """Write each shard in a task of its own; what became of them."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            mine = [shards[place] for place in batch.column("id").to_pylist()]
            yield from write_shards(work, staging, mine)

    places = session.range(0, len(shards), 1, numPartitions=len(shards))
    rows: list[Row] = places.mapInArrow(write, OUTCOME_COLUMNS).collect()
    return rows


def _finished(staged: Output, table: str) -> set[int]:
    """The shards that are whole in a staging folder."""
    return {int(path.stem.removeprefix("part-")) for path in (staged.root / table).glob("part-*")}
