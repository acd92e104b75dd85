"""The first stage of a run: its tables are read, checked and split, in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipelines.config import RunConfig
from pipelines.data.engines import EngineName, open_stream_engine
from pipelines.data.hold_out import TrainedOn, hold_out_new
from pipelines.data.interactions import read_tables, tables_from_frames
from pipelines.data.prepare import AnyPrepared, Prepared, load_prepared, prepare, save_prepared
from pipelines.data.stream.prepare import prepare_stored
from pipelines.progress import Reporter
from towers.errors import ConfigError

PREPARED = "prepared"
"""The folder in a run's work folder that keeps the tables once they are split."""

QUARANTINE = "quarantine"
"""The folder in the models directory for rows that were set aside."""


def prepare_in(
    work: Path,
    config: RunConfig,
    *,
    frames: Mapping[str, pd.DataFrame] | None,
    trained_on: TrainedOn | None,
    engine: EngineName,
    master: str | None,
    reporter: Reporter,
) -> AnyPrepared:
    """Prepare the tables of a run, or take what an interrupted run has kept of it in `work`.

    What a version was `trained_on`, from which the run continues, is not held out.

    Raises:
        BundleError: that version is damaged.
        ConfigError: as `read_tables` and `prepare`.
        DataError: as `read_tables` and `prepare`.
    """
    if (work / PREPARED).exists():
        with reporter.stage("load prepared tables"):
            return load_prepared(work / PREPARED)
    if engine == "memory":
        return _prepare(config, frames, work=work, reporter=reporter, trained_on=trained_on)
    return _prepare_on_disk(
        config,
        work=work,
        reporter=reporter,
        engine=engine,
        master=master,
        trained_on=trained_on,
    )


def check_engine(engine: EngineName, *, frames: Mapping[str, pd.DataFrame] | None) -> None:
    """Refuse DataFrames where they cannot be read.

    Raises:
        ConfigError: DataFrames are given, and the engine reads files.
    """
    if engine != "memory" and frames is not None:
        raise ConfigError(
            f"engine: expected memory for tables that are given as DataFrames, received {engine!r}"
        )


def _prepare(
    config: RunConfig,
    frames: Mapping[str, pd.DataFrame] | None,
    *,
    work: Path,
    reporter: Reporter,
    trained_on: TrainedOn | None,
) -> Prepared:
    """Read, check and split the tables in memory."""
    quarantine = work.parent / QUARANTINE
    with reporter.stage("read and check"):
        if frames is None:
            tables = read_tables(config, quarantine_dir=quarantine)
        else:
            tables = tables_from_frames(config, **frames, quarantine_dir=quarantine)
    for line in tables.report.lines():
        reporter.say(f"  {line}")
    with reporter.stage("split"):
        prepared = prepare(tables, config)
        if trained_on is not None:
            prepared = hold_out_new(prepared, trained_on)
            for line in prepared.lines[len(tables.report.lines()) :]:
                reporter.say(f"  {line}")
    _say_counts(prepared, reporter)
    save_prepared(prepared, work / PREPARED)
    return prepared


def _prepare_on_disk(
    config: RunConfig,
    *,
    work: Path,
    reporter: Reporter,
    engine: EngineName,
    master: str | None,
    trained_on: TrainedOn | None,
) -> AnyPrepared:
    """Read, check and split the tables in bounded memory."""
    with open_stream_engine(engine, master=master) as opened:
        prepare_stored(
            config,
            work / PREPARED,
            engine=opened,
            quarantine_dir=work.parent / QUARANTINE,
            reporter=reporter,
            trained_on=trained_on,
        )
    prepared = load_prepared(work / PREPARED)
    for line in prepared.lines:
        reporter.say(f"  {line}")
    _say_counts(prepared, reporter)
    return prepared


def _say_counts(prepared: AnyPrepared, reporter: Reporter) -> None:
    """Print how many rows each table has."""
    parts = ", ".join(f"{count:,} {name}" for name, count in prepared.counts.items())
    reporter.say(f"  {parts}")
