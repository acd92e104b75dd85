"""Read, check and split the tables of a run in bounded memory; the interactions stay on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.blocks import finish_blocks
from pipelines.data.entities import CheckedEntities, entities_from_ids
from pipelines.data.frames import to_arrow
from pipelines.data.hashing import blocks_of, hash_ids
from pipelines.data.hold_out import TrainedOn
from pipelines.data.ids import IdColumn, IdKind, decide_id_kind
from pipelines.data.interactions import (
    SIDES,
    ReadReport,
    Sources,
    check_all_entities,
    check_any,
    only_one,
    report_entities,
    report_interactions,
    require_all_columns,
)
from pipelines.data.prepare import BLOCKS
from pipelines.data.rejects import settle_rejects
from pipelines.data.split import check_train
from pipelines.data.stream.check import Keys, read_ids, write_ids
from pipelines.data.stream.engine import Engine
from pipelines.data.stream.job import Job, Settled, Sizes
from pipelines.data.stream.store import Cuts
from pipelines.data.tables import read_table
from pipelines.progress import Reporter
from serving.atomic import move_directory
from towers.schema import Side


def prepare_stored(
    config: RunConfig,
    folder: Path,
    *,
    engine: Engine,
    quarantine_dir: Path | None,
    reporter: Reporter,
    sizes: Sizes | None = None,
    trained_on: TrainedOn | None = None,
) -> None:
    """Write what `prepare` would give as the new folder `folder`, all of it or nothing.

    Users, items and the report are as `save_prepared` writes them; the interactions, which are
    read from Parquet, are blocks (see `pipelines.data.blocks`). Memory does not grow with their
    number. What a version was trained on that the run continues from is not held out.

    Raises:
        ConfigError: the interactions are not Parquet, or as for `read_tables` and `prepare`.
        DataError: as for `read_tables` and `prepare`.
    """
    folder = folder.absolute()  # a worker on another machine starts elsewhere
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    work = beside / uuid4().hex  # no step may take what it remembers of another job for this one's
    work.mkdir(parents=True)
    try:
        job = Job.open(config, work=work, engine=engine, reporter=reporter, sizes=sizes or Sizes())
        _write(job, beside, quarantine_dir=quarantine_dir, trained_on=trained_on)
        shutil.rmtree(work)
        move_directory(beside, folder)
    finally:
        read_ids.cache_clear()
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    job: Job, folder: Path, *, quarantine_dir: Path | None, trained_on: TrainedOn | None
) -> None:
    """Write all that `folder` is to hold."""
    tables = _write_tables(job, folder, quarantine_dir=quarantine_dir, trained_on=trained_on)
    ids, lines = tables.ids, tables.lines
    cuts = _cuts(job, tables.settled)
    job.forget_checked()
    block_of_user = blocks_of(hash_ids(ids["user"]), n_blocks=job.n_blocks)
    n_known = 0
    if trained_on is not None:
        n_known = job.write_known(trained_on, ids=ids, block_of_user=block_of_user)
    blocks = folder / BLOCKS
    blocks.mkdir()
    n_moved = job.store(
        blocks, ids=_write_ids(job, ids), cuts=cuts, settled=tables.settled, n_known=n_known
    )
    if trained_on is not None and n_moved:
        lines = [*lines, trained_on.message(n_moved)]
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    with job.reporter.stage("count interactions"):
        finish_blocks(
            blocks,
            block_of_user=block_of_user,
            n_items=len(ids["item"]),
            n_blocks=job.n_blocks,
            has_times=job.has_times,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tables:
    """What the rows of all tables have come to."""

    ids: Mapping[Side, pd.Series]
    """By row."""
    lines: list[str]
    """The report."""
    settled: Settled


def _write_tables(
    job: Job, folder: Path, *, quarantine_dir: Path | None, trained_on: TrainedOn | None
) -> _Tables:
    """Check and settle all rows, and write users and items."""
    with job.reporter.stage("check users and items"):
        id_kinds, entities = _check_entities(job)
    if trained_on is not None:
        trained_on.check_ids(id_kinds)
    known_ids = _ids(job, {side: found.rows for side, found in entities.items()})
    keys = Keys(id_kinds=id_kinds, known_ids=_write_ids(job, known_ids))
    reasons = job.check(keys)
    settled = job.settle(keys, reasons)
    faults = job.faults(reasons)
    files = settle_rejects(
        [*(found.rejects for found in entities.values()), *faults.values()],
        on_bad_rows=job.config.data.on_bad_rows,
        quarantine_dir=quarantine_dir,
    )
    _refuse(job, settled, keys)
    reports = [report_entities(found, files=files) for found in entities.values()]
    reports += [
        report_interactions(faults[name], settled.counts[name], rows=table.n_rows, files=files)
        for name, table in job.tables.items()
    ]
    frames = {side: _frame(job, side, entities, keys) for side in SIDES}
    for side, frame in frames.items():
        pq.write_table(to_arrow(frame, name=f"{side}s"), folder / f"{side}s.parquet")
    lines = ReadReport(tables=tuple(reports)).lines()
    return _Tables(ids=_ids(job, frames), lines=list(lines), settled=settled)


def _check_entities(job: Job) -> tuple[Mapping[Side, IdKind], dict[Side, CheckedEntities]]:
    """Decide what ids are, and check the tables of users and items, which are held in memory."""
    data, schema = job.config.data, job.config.schema
    sources = Sources(
        interactions=job.tables["interactions"].empty(),
        users=read_table(data.users, name="users") if data.users else None,
        items=read_table(data.items, name="items") if data.items else None,
        test=job.tables["test"].empty() if "test" in job.tables else None,
    )
    require_all_columns(job.config, sources)
    id_kinds: dict[Side, IdKind] = {}
    for side in SIDES:
        columns = [
            table.first_ids(table.table.user if side == "user" else table.table.item)
            for table in job.tables.values()
        ]
        given = sources.entities(side)
        if given is not None:
            columns.append(IdColumn(source=given, column=schema.id_column(side)))
        id_kinds[side] = decide_id_kind(columns)
    return id_kinds, check_all_entities(sources, schema=schema, id_kinds=id_kinds)


def _ids(job: Job, frames: Mapping[Side, pd.DataFrame]) -> dict[Side, pd.Series]:
    """The ids of tables of users and items."""
    column = job.config.schema.id_column
    return {side: frame[column(side)].copy() for side, frame in frames.items()}


def _write_ids(job: Job, ids: Mapping[Side, pd.Series]) -> dict[Side, Path]:
    """Write the ids of some sides where steps find them."""
    paths: dict[Side, Path] = {side: job.work / f"ids-{side}.parquet" for side in ids}
    for side, path in paths.items():
        write_ids(path, ids[side])
    return paths


def _frame(
    job: Job, side: Side, entities: Mapping[Side, CheckedEntities], keys: Keys
) -> pd.DataFrame:
    """The table of a side; of one that has none, the ids in order of first occurrence."""
    if side in entities:
        return entities[side].rows
    ids = job.first_seen(keys.column(side))
    return entities_from_ids(ids, id_column=job.config.schema.id_column(side))


def _refuse(job: Job, settled: Settled, keys: Keys) -> None:
    """Refuse tables of which too little is left.

    Raises:
        DataError: there is no positive, or only one user or item.
    """
    for name, table in job.tables.items():
        check_any(settled.counts[name], where=table.empty().where)
    for side in SIDES:
        least, greatest = settled.extremes[keys.column(side)]
        if least == greatest:
            known = keys.known_ids.get(side)
            one = least if known is None else read_ids(known).tolist()[int(least)]
            raise only_one(side, one, where=job.tables["interactions"].empty().where)


def _cuts(job: Job, settled: Settled) -> Cuts | None:
    """Find where time cuts the interactions; none if it does not."""
    if not job.by_time:
        return None
    sizes = job.fractions.sizes(settled.counts["interactions"].kept)
    check_train(sizes)
    with job.reporter.stage("find the cuts in time"):
        n_rest = sizes.train + sizes.validation
        return Cuts(validation=job.place(sizes.train), test=job.place(n_rest))
