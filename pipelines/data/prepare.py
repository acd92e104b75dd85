"""Prepare: read, check and split the tables of a run, and keep the outcome in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS, HeldInteractions, Interactions, Part, ids_of
from pipelines.data.engines import Plan
from pipelines.data.entities import entities_from_ids
from pipelines.data.faults.rejects import Faults, settle_rejects
from pipelines.data.faults.report import CheckedRows, describe_behaviours, report_table
from pipelines.data.hold_out import TrainedOn
from pipelines.data.inputs import Frames, Inputs
from pipelines.data.sources.arrow import to_arrow
from pipelines.data.steps.check import Keys, read_ids
from pipelines.data.steps.chunks import INTERACTIONS
from pipelines.data.steps.database import forget_databases
from pipelines.data.steps.hashing import blocks_of, hash_ids
from pipelines.data.steps.job import Job, Settled
from pipelines.data.store_blocks import StoredInteractions, finish_blocks
from pipelines.progress import Reporter
from serving.atomic import move_directory
from towers.errors import ConfigError, DataError
from towers.features.schema import SIDES, Side

BLOCKS = "blocks"
"""The folder of the interactions in the folder of a preparation."""

CONTEXTS = "contexts.parquet"
"""The contexts there, if interactions have some."""

AVAILABLE = "available.npy"
"""The times from which items could be chosen there, if their table has some."""

LINES = "lines.json"
"""The report there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Clean users and items, and the interactions of each part of the split."""

    users: pd.DataFrame
    """One row a user: its id, then its other columns; see `pipelines.data.entities`."""
    items: pd.DataFrame
    """One row an item, likewise."""
    lines: tuple[str, ...]
    """The report: how many rows of each table were read, kept and rejected."""
    blocks: Path
    """The folder of the interactions; see `pipelines.data.blocks`."""
    contexts: pd.DataFrame | None = None
    """The context of each moment, one row each, by its columns; None where there is none."""
    available: NDArray[np.float64] | None = None
    """The time from which each item could be chosen, [n_items], NaN where the table of items gives
    none; None where it has no such times."""
    parts: tuple[Part, ...] = PARTS
    """The parts that may be read; all others are empty."""

    @classmethod
    def load(cls, folder: Path) -> Prepared:
        """Read what `prepare` wrote."""
        users, items = (pd.read_parquet(folder / f"{side}s.parquet") for side in SIDES)
        lines = tuple(json.loads((folder / LINES).read_text(encoding="utf-8")))
        contexts, available = folder / CONTEXTS, folder / AVAILABLE
        return cls(
            users=users,
            items=items,
            lines=lines,
            blocks=folder / BLOCKS,
            contexts=pd.read_parquet(contexts) if contexts.exists() else None,
            available=np.load(available) if available.exists() else None,
        )

    @property
    def tables(self) -> dict[Side, pd.DataFrame]:
        """Users and items by side."""
        return {"user": self.users, "item": self.items}

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of users, of items, and of interactions by part."""
        found = {"users": len(self.users), "items": len(self.items)}
        return found | {part: int(self.stored(part).user_counts.sum()) for part in PARTS}

    def interactions(self, *parts: Part) -> Interactions:
        """The positives of one or more parts, by row; held in memory if they are one block."""
        stored = self.stored(*parts)
        if stored.n_blocks > 1:
            return stored
        block = stored.block(0)
        return HeldInteractions(
            block.matrix,
            has_times=stored.has_times,
            events=block.events,
            behaviours=stored.behaviours,
            times=block.times,
        )

    def frame(self, *parts: Part) -> pd.DataFrame:
        """The positives of one or more parts as a table, in order of time where they have times.

        Its columns are user_id, item_id, timestamp (if there is one) and weight; in memory.
        """
        rows = self.stored(*parts).rows()
        ids = {side: ids_of(table, table.columns[0]) for side, table in self.tables.items()}
        columns = {f"{side}_id": ids[side][rows[f"{side}_row"]] for side in SIDES}
        columns |= {name: rows[name] for name in ("timestamp", "weight")}
        frame = pd.DataFrame(columns)
        if not self.stored().has_times:
            return frame.drop(columns="timestamp")
        return frame.sort_values("timestamp", kind="stable", ignore_index=True)

    def stored(self, *parts: Part) -> StoredInteractions:
        """The positives of one or more parts as they are on disk, with their times."""
        return StoredInteractions(self.blocks, tuple(set(parts) & set(self.parts)))


def prepare(
    config: RunConfig,
    folder: Path,
    *,
    frames: Frames | None = None,
    plan: Plan | None = None,
    quarantine_dir: Path | None = None,
    trained_on: TrainedOn | None = None,
    reporter: Reporter | None = None,
) -> Prepared:
    """Read, check and split the tables of a run into the new folder `folder`.

    The folder is there as a whole or not at all. Memory grows with users and items, and with the
    chunk and the block of interactions that `plan` holds at a time.

    Args:
        config: the tables, their schema, and the split.
        folder: what `Prepared.load` reads.
        frames: the tables as DataFrames, in place of the files that `config` names.
        plan: where steps run, and in how many blocks; by default here, in one.
        quarantine_dir: where rows at fault are written, as <table>.csv, if `data.on_bad_rows` is
            `quarantine`; without, they are counted only.
        trained_on: what the version has seen that the run continues from; it is not held out.
        reporter: shows progress; silent by default.

    Raises:
        BundleError: what that version was trained on is damaged.
        ConfigError: a path or a column is missing, or times to split by.
        DataError: a file cannot be read, a row is at fault (and `on_bad_rows` is `fail`), ids
            have several types, or too little is left to train on.
    """
    plan, reporter = plan or Plan(), reporter or Reporter()
    folder = folder.absolute()  # a worker on another machine starts elsewhere
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    work = beside / uuid4().hex  # a new name, since steps cache what they read by path
    work.mkdir(parents=True)
    try:
        with plan.open() as run_step:
            with reporter.stage("read and check"):
                inputs = Inputs.open(
                    config,
                    frames=frames,
                    chunk_rows=plan.chunk_rows,
                    work=work,
                )
                job = Job.of(config, inputs, plan, work=work, run_step=run_step, reporter=reporter)
                checked = _check(inputs, job, trained_on, quarantine_dir)
            for line in checked.lines:
                reporter.say(f"  {line}")
            with reporter.stage("split"):
                lines = _divide(inputs, job, checked, beside / BLOCKS, trained_on)
        _write_tables(checked.tables, [*checked.lines, *lines], beside)
        if checked.contexts is not None:
            checked.contexts.to_parquet(beside / CONTEXTS)
        if checked.available is not None:
            np.save(beside / AVAILABLE, checked.available)
        shutil.rmtree(work)
        move_directory(beside, folder)
    finally:
        read_ids.cache_clear()
        forget_databases()
        shutil.rmtree(beside, ignore_errors=True)
    prepared = Prepared.load(folder)
    counts = ", ".join(f"{count:,} {name}" for name, count in prepared.counts.items())
    for line in [*lines, counts]:
        reporter.say(f"  {line}")
    return prepared


@dataclass(frozen=True, kw_only=True, eq=False)
class _Checked:
    """The outcome of the checks of all tables."""

    tables: Mapping[Side, pd.DataFrame]
    """Users and items."""
    contexts: pd.DataFrame | None
    """The context of each moment, where there is one."""
    available: NDArray[np.float64] | None
    """The time from which each item could be chosen, where the table of items has some."""
    lines: list[str]
    """The report."""
    n_kept: Mapping[str, int]
    """How many interactions are left, by table."""

    def ids(self) -> dict[Side, pd.Series]:
        """The ids of users and items by row; a table begins with them."""
        return {side: table[table.columns[0]].copy() for side, table in self.tables.items()}


def _check(
    inputs: Inputs, job: Job, trained_on: TrainedOn | None, quarantine_dir: Path | None
) -> _Checked:
    """Check the rows of all tables, set those at fault aside, and take the positives."""
    id_kinds, id_notes = inputs.id_kinds()
    if trained_on is not None:
        trained_on.check_ids(id_kinds)
    entities = inputs.check_entities(id_kinds)
    tables = {side: found.rows for side, found in entities.items()}
    keys = Keys(id_kinds=id_kinds, known_ids=job.write_ids(tables))
    checked = job.check(keys)
    _refuse_absent(inputs, checked[INTERACTIONS])
    numbered = {
        side: entities_from_ids(
            job.first_seen(keys.column(side)), id_column=inputs.schema.id_column(side)
        )
        for side in SIDES
        if side not in tables
    }
    tables = {side: (tables | numbered)[side] for side in SIDES}
    moments = job.write_moments()
    settled = job.settle(keys, checked, ids=job.write_ids(numbered))
    faults = job.faults(checked)
    all_faults = [*(found.faults for found in entities.values()), *faults.values()]
    files = settle_rejects(
        all_faults,
        on_bad_rows=inputs.on_bad_rows,
        quarantine_dir=quarantine_dir,
    )
    _refuse(inputs, settled, tables, faults=all_faults)
    reports = [
        report_table(found.faults, kept=len(found.rows), files=files, notes=found.notes)
        for found in entities.values()
    ]
    reports += [
        report_table(
            faults[name],
            kept=counts.kept,
            files=files,
            positives=counts,
            notes=describe_behaviours(inputs.behaviours, checked[name]),
        )
        for name, counts in settled.counts.items()
    ]
    return _Checked(
        tables=tables,
        contexts=moments,
        available=entities["item"].available if "item" in entities else None,
        lines=[*(line for report in reports for line in report.lines()), *id_notes],
        n_kept={name: counts.kept for name, counts in settled.counts.items()},
    )


def _refuse_absent(inputs: Inputs, checked: CheckedRows) -> None:
    """Refuse behaviours that no good row has.

    Raises:
        ConfigError: with the names that there are.
    """
    chunks = inputs.interactions[INTERACTIONS]
    absent = [name for name, count in checked.behaviours.items() if not count]
    found = {n: count for n, count in checked.behaviours.items() if count} | dict(checked.others)
    if chunks.table.event is None or not absent or not found:
        return
    shown = ", ".join(f"{name!r} ({count:,})" for name, count in found.items())
    raise ConfigError(
        f"data.behaviours: expected rows of {chunks.source.where} whose {chunks.table.event} is "
        f"{' or '.join(map(repr, absent))}, received none; the column has {shown}; correct the "
        "names, or remove those that do not occur"
    )


def _refuse(
    inputs: Inputs,
    settled: Settled,
    tables: Mapping[Side, pd.DataFrame],
    *,
    faults: Sequence[Faults],
) -> None:
    """Refuse interactions of which too little is left; `faults` are the rows that were rejected.

    Raises:
        DataError: there is no positive, or only one user or item.
    """
    for name, chunks in inputs.interactions.items():
        settled.counts[name].check_any(where=chunks.source.where, faults=faults)
    for side, row in settled.only.items():
        one = tables[side].iloc[:, 0].tolist()[row]
        raise DataError(
            f"{inputs.interactions[INTERACTIONS].source.where}: expected positives of at least "
            f"two {side}s, received those of one, {one!r}; check which column holds the {side} ids"
        )


def _divide(
    inputs: Inputs, job: Job, checked: _Checked, blocks: Path, trained_on: TrainedOn | None
) -> list[str]:
    """Divide the positives into parts, and write them by block; says what was not held out."""
    cuts = job.cut(checked.n_kept[INTERACTIONS])
    ids = checked.ids()
    block_of_user = blocks_of(hash_ids(ids["user"]), n_blocks=job.n_blocks)
    n_known = 0
    if trained_on is not None:
        n_known = job.write_known(trained_on, ids=ids, block_of_user=block_of_user)
    blocks.mkdir()
    total = sum(checked.n_kept.values())
    n_moved = job.store(blocks, cuts=cuts, n_known=n_known, total=total)
    finish_blocks(
        blocks,
        block_of_user=block_of_user,
        n_items=len(ids["item"]),
        n_blocks=job.n_blocks,
        has_times=job.has_times,
        behaviours=inputs.behaviours,
        has_context=checked.contexts is not None,
    )
    return [trained_on.message(n_moved)] if trained_on is not None and n_moved else []


def _write_tables(tables: Mapping[Side, pd.DataFrame], lines: Sequence[str], folder: Path) -> None:
    """Write users, items and the report."""
    for side, table in tables.items():
        pq.write_table(to_arrow(table, name=f"{side}s"), folder / f"{side}s.parquet")
    (folder / LINES).write_text(json.dumps(lines), encoding="utf-8")
