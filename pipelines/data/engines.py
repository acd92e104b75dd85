"""Engines: where the steps of a preparation run, and how many rows each of them holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.sources.files import PARQUET_SUFFIXES
from pipelines.data.steps.spark import SparkEngine
from pipelines.data.steps.step import Engine, LocalEngine
from pipelines.spark.session import open_session
from towers.errors import ConfigError

EngineName = Literal["memory", "disk", "spark"]

LARGE = 10_000_000
"""Interactions in Parquet beyond which they stay on disk unasked."""

ROWS = 2**21
"""How many rows of interactions a chunk and, on average, a block has on disk."""


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
    def open(self) -> Iterator[Engine]:
        """Open what carries out the steps, until the block ends.

        Raises:
            ConfigError: Spark cannot start, or does not reach the cluster.
        """
        if self.engine == "spark":
            with open_session(self.master) as session:
                yield SparkEngine(session)
        else:
            yield LocalEngine()


def choose_engine(config: RunConfig, *, asked: str | None, master: str | None) -> Plan:
    """Plan a preparation: on disk if there are many interactions in Parquet, if nothing is asked.

    Raises:
        ConfigError: there is no such engine, or a master for another than Spark.
    """
    if asked is not None and asked not in get_args(EngineName):
        raise ConfigError(f"--engine: expected memory, disk or spark, received {asked!r}")
    if master is not None and asked != "spark":
        raise ConfigError(f"--master: received {master!r}; expected with --engine spark only")
    if asked is not None:
        return Plan(engine=cast(EngineName, asked), master=master)
    is_large = _n_parquet_rows(Path(config.data.interactions.path)) > LARGE
    return Plan(engine="disk" if is_large else "memory")


def _n_parquet_rows(path: Path) -> int:
    """The rows of a table in Parquet; 0 for one of another kind, or that cannot be read."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        parquet = [file for file in files if file.suffix.lower() in PARQUET_SUFFIXES]
        return sum(pq.read_metadata(file).num_rows for file in parquet)
    except (OSError, pa.ArrowException):
        return 0  # reading the table will say what is wrong
