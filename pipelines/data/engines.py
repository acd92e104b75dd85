"""Engines: where the steps of a preparation run, and how many rows each of them holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.sources.files import table_files
from pipelines.spark.session import open_session
from pipelines.spark.tasks import Outcome, Task, run_tasks
from towers.errors import ConfigError, RecallError

EngineName = Literal["memory", "disk", "spark"]

LARGE = 10_000_000
"""Interactions in Parquet beyond which they stay on disk unasked; as do large CSV files."""

ROWS = 2**21
"""How many rows of interactions a chunk and, on average, a block has on disk."""


RunStep = Callable[[Task, int], Iterator[tuple[int, Outcome]]]
"""Runs a step on numbers from 0 up to another, and gives each outcome when it is there.

A step is a frozen dataclass that reads files and writes files, and can be done again. It holds what
it needs by value, and paths that are the same on every machine.
"""


def run_here(step: Task, count: int) -> Iterator[tuple[int, Outcome]]:
    """Run a step on numbers 0 to `count` - 1 in this process, one after another."""
    for number in range(count):
        yield number, step(number)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the steps of a preparation run, and in how many chunks and blocks."""

    engine: EngineName = "memory"
    """`memory`: here, in one chunk and one block; `disk`: here, in many; `spark`: on a cluster."""
    master: str | None = None
    """The URL of a Spark cluster, or local[n]."""
    rows: int = ROWS
    """How many rows a chunk and, on average, a block has where there are many."""

    @property
    def chunk_rows(self) -> int | None:
        """How many rows are read at a time; None for all."""
        return None if self.engine == "memory" else self.rows

    def n_blocks(self, n_rows: int) -> int:
        """How many blocks so many rows of interactions make."""
        return 1 if self.engine == "memory" else max(-(-n_rows // self.rows), 1)

    @contextmanager
    def open(self) -> Iterator[RunStep]:
        """Open what runs the steps, until the block ends.

        Raises:
            ConfigError: Spark cannot start, or does not reach the cluster.
        """
        if self.engine == "spark":
            with open_session(self.master) as session:
                yield lambda step, count: run_tasks(session, step, range(count))
        else:
            yield run_here


def choose_engine(config: RunConfig, *, asked: str | None, master: str | None) -> Plan:
    """Plan a preparation: on disk if there are many interactions, if nothing is asked.

    Raises:
        ConfigError: there is no such engine, or a master for another than Spark.
    """
    if asked is not None and asked not in get_args(EngineName):
        raise ConfigError(f"--engine: expected memory, disk or spark, received {asked!r}")
    if master is not None and asked != "spark":
        raise ConfigError(f"--master: received {master!r}; expected with --engine spark only")
    if asked is not None:
        return Plan(engine=cast(EngineName, asked), master=master)
    is_large = any(_is_large(table.path) for table in config.data.tables)
    return Plan(engine="disk" if is_large else "memory")


def _is_large(path: str) -> bool:
    """Whether a table is too large for memory; not if it cannot be read, as reading it will say."""
    try:
        files = table_files(path, name="interactions")
        if not files.is_parquet:
            return files.is_large_text
        n_rows: int = sum(pq.read_metadata(file.path).num_rows for file in files.files)
        return n_rows > LARGE
    except (RecallError, OSError, pa.ArrowException):
        return False
