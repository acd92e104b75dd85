"""Write the candidates of every user of a table, and the audiences of items, as Parquet shards.

A shard answers a fixed range of rows of the input, batch by batch. So a job that was killed goes on
with the next shard, and writes the rows that it would have written without the interruption.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from pipelines.candidates.answer import AudienceTable, CandidateTable
from pipelines.candidates.blocklist import read_block, remove_blocked
from pipelines.candidates.settings import CandidateSettings
from pipelines.candidates.shards import Output, Record, open_output, totals
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.progress import Advance, Reporter
from serving.retrieval.parts import Parts
from serving.version.bundle import Bundle
from serving.version.manifest import MANIFEST, FileRecord
from serving.version.store import Store, open_bundle
from towers.errors import ConfigError, DataError

WORKERS = 2
"""Threads that answer batches, so that one batch is searched while another is read."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class CandidateJob:
    """The input, the version, the settings and the folder of a job."""

    models: Path
    """A models directory, whose current version answers, or one bundle."""
    out: Path
    users: Path | None = None
    """A table of users in Parquet, to list candidates for."""
    items: Path | None = None
    """A table of items in Parquet, to list audiences for."""
    block: Path | None = None
    """The blocklist: a table of item ids that are never candidates, in Parquet or CSV."""
    version: int | None = None
    settings: CandidateSettings = dataclasses.field(default_factory=CandidateSettings)


@dataclass(frozen=True, eq=False)
class Task:
    """One table to write."""

    table: str
    """`candidates` or `audiences`."""
    files: SourceFiles
    answer: CandidateTable | AudienceTable
    shard_size: int
    batch_size: int

    @property
    def n_shards(self) -> int:
        """At least one, so that an empty input gives an empty table."""
        return max(1, -(-self.files.n_rows // self.shard_size))

    def sizes(self, shard: int) -> list[int]:
        """The number of rows of each batch of a shard."""
        first = shard * self.shard_size
        n_rows = min(self.files.n_rows - first, self.shard_size)
        full, rest = divmod(n_rows, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 0)

    def load(self) -> None:
        """Load the indexes and vectors that answers need, before threads share them."""
        self.answer(self.files.schema.empty_table())


@dataclass(frozen=True, eq=False)
class Missing:
    """The shards of a table that are still missing, for an engine to write."""

    job: CandidateJob
    bundle: Bundle
    task: Task
    shards: list[int]
    output: Output

    @contextmanager
    def progress(self, reporter: Reporter) -> Iterator[Advance]:
        """Show how many of the rows are done, until the block ends."""
        table, unit = self.task.table, self.task.files.name
        left = sum(sum(self.task.sizes(shard)) for shard in self.shards)
        with (
            reporter.stage(f"{table}: {left:,} {unit}"),
            reporter.bar(table, left, unit=unit) as advance,
        ):
            yield advance


Engine = Callable[[Missing, Reporter], None]
"""Writes missing shards and reports its progress, such as `write_here`."""


def write_here(missing: Missing, reporter: Reporter) -> None:
    """Write missing shards in this process."""
    task = missing.task
    with reporter.stage(f"{task.table}: load"):
        task.load()
    with missing.progress(reporter) as advance:
        for stretch in _stretches(missing.shards):
            write_stretch(task, missing.output, shards=stretch, advance=advance)


def write_candidates(
    job: CandidateJob,
    *,
    again: bool = False,
    reporter: Reporter | None = None,
    engine: Engine = write_here,
) -> dict[str, Record]:
    """Write the shards that are missing, and then the manifest.

    Args:
        job: what to write.
        again: start over, even where the folder holds the rows of another job.
        reporter: shows progress; silent by default.
        engine: writes the shards; every engine writes the same rows.

    Returns:
        The totals of each table that was asked for, `candidates` and `audiences`.

    Raises:
        BundleError: there is no such version, or it is damaged.
        ConfigError: a setting is wrong, or the folder holds another job's rows.
        DataError: an input cannot be read.
        QueryError: the filter is none, or does not fit the items.
    """
    reporter = reporter or Reporter()
    inputs = {"candidates": (job.users, "users"), "audiences": (job.items, "items")}
    block = None if job.block is None else read_block(job.block)
    files = {
        table: SourceFiles.open(path, name=name)
        for table, (path, name) in inputs.items()
        if path is not None
    }
    if not files:
        raise ConfigError("candidates: expected --users, --items or both, received neither")
    bundle = open_bundle(job.models) if job.version is None else Store(job.models).open(job.version)
    described = {
        "version": bundle.version,
        "bundle": FileRecord.of(bundle.path / MANIFEST).sha256,
        "settings": dataclasses.asdict(job.settings),
        "block": block
        and [FileRecord.of(Path(shard.file)).sha256 for shard in block.read(0, 0).shards],
        "inputs": {table: source.fingerprint() for table, source in files.items()},
    }
    with open_output(job.out, described, again=again) as output:
        parts = Parts(bundle)
        if block is not None:
            remove_blocked(parts, block, job.settings.plan)
        tasks = {
            table: make_task(table, source, parts=parts, settings=job.settings)
            for table, source in files.items()
        }
        records = {}
        for table, task in tasks.items():
            found = _find_shards(task, output, reporter=reporter)
            shards = [shard for shard, record in found.items() if record is None]
            if shards:
                engine(Missing(job, bundle, task, shards, output), reporter)
            records[table] = _complete(task, output, found)
        output.finish(records)
    return {table: totals(shards) for table, shards in records.items()}


def make_task(table: str, files: SourceFiles, *, parts: Parts, settings: CandidateSettings) -> Task:
    """Prepare to answer one table.

    Raises:
        ConfigError: there is no column of ids.
        DataError: a column's type cannot be its feature's.
        QueryError: the filter is none, or does not fit the items.
    """
    kind = CandidateTable if table == "candidates" else AudienceTable
    answer = kind(parts, settings, schema=files.schema)
    return Task(table, files, answer, settings.shard_size, settings.batch_size)


def write_stretch(task: Task, output: Output, *, shards: list[int], advance: Advance) -> None:
    """Write consecutive shards, while the input is read once.

    Raises:
        DataError: an input cannot be read.
    """
    start = shards[0] * task.shard_size
    sizes = [size for shard in shards for size in task.sizes(shard)]
    batches = task.files.batches(start, columns=task.answer.columns, sizes=sizes)
    with _ahead(task.answer, batches, workers=WORKERS) as answers:
        for shard in shards:
            row = shard * task.shard_size
            with output.writing(task.table, shard, schema=task.answer.schema) as writer:
                for size in task.sizes(shard):
                    writer.write(next(answers), first_row=row, size=size)
                    row += size
                    advance(size)


def _find_shards(task: Task, output: Output, *, reporter: Reporter) -> dict[int, Record | None]:
    """The record of each shard of a table; None where it is missing."""
    found = {shard: output.read(task.table, shard) for shard in range(task.n_shards)}
    done = sum(sum(task.sizes(shard)) for shard, record in found.items() if record is not None)
    if done:
        total, unit = task.files.n_rows, task.files.name
        reporter.say(f"{task.table}: {done:,} of {total:,} {unit} done before")
    return found


def _complete(task: Task, output: Output, found: Mapping[int, Record | None]) -> list[Record]:
    """The records of all shards of a table, after the missing ones were written."""
    records = [record or output.read(task.table, shard) for shard, record in found.items()]
    there = [record for record in records if record is not None]
    if len(there) < task.n_shards:
        raise DataError(f"{output.root}: a shard is missing; repeat the command to write it again")
    return there


def _stretches(shards: Iterable[int]) -> Iterator[list[int]]:
    """Group sorted numbers into runs of consecutive ones."""
    for _, found in groupby(enumerate(shards), key=lambda pair: pair[1] - pair[0]):
        yield [shard for _, shard in found]


@contextmanager
def _ahead(
    function: Callable[[T], R], items: Iterable[T], *, workers: int
) -> Iterator[Iterator[R]]:
    """Call a function for items in threads; results come in order, and few are held at a time."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:

        def results() -> Iterator[R]:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()
