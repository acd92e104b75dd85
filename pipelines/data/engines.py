"""Engines of a run: where its tables are read, checked and split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.sources.files import PARQUET_SUFFIXES
from pipelines.data.stream.engine import Engine, LocalEngine
from pipelines.data.stream.spark import SparkEngine
from pipelines.spark.session import open_session
from towers.errors import ConfigError

EngineName = Literal["memory", "disk", "spark"]

LARGE = 10_000_000
"""Interactions in Parquet beyond which they stay on disk unasked."""


def choose_engine(config: RunConfig, *, asked: str | None, master: str | None) -> EngineName:
    """Say where a run's tables are prepared: `memory` or `disk` by their size, if nothing is asked.

    Raises:
        ConfigError: there is no such engine, or a master for another than Spark.
    """
    if asked is not None and asked not in get_args(EngineName):
        raise ConfigError(f"--engine: expected memory, disk or spark, received {asked!r}")
    if master is not None and asked != "spark":
        raise ConfigError(f"--master: received {master!r}; expected with --engine spark only")
    if asked is not None:
        return cast(EngineName, asked)
    return "disk" if _n_parquet_rows(Path(config.data.interactions.path)) > LARGE else "memory"


@contextmanager
def open_stream_engine(name: EngineName, *, master: str | None) -> Iterator[Engine]:
    """Open what carries out the steps of a preparation on disk, until the block ends.

    Raises:
        ConfigError: Spark cannot start, or does not reach the cluster.
    """
    if name == "spark":
        with open_session(master) as session:
            yield SparkEngine(session)
    else:
        yield LocalEngine()


def _n_parquet_rows(path: Path) -> int:
    """The rows of a table in Parquet; 0 for one of another kind, or that cannot be read."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        parquet = [file for file in files if file.suffix.lower() in PARQUET_SUFFIXES]
        return sum(pq.read_metadata(file).num_rows for file in parquet)
    except (OSError, pa.ArrowException):
        return 0  # reading the table will say what is wrong
