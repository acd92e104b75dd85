"""Read, check and clean the tables of a run: interactions, users, items and test interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipelines.config import InteractionsTable, RunConfig
from pipelines.data.entities import (
    CheckedEntities,
    check_entities,
    entities_from_ids,
    require_columns,
)
from pipelines.data.ids import IdColumn, IdKind, decide_id_kind
from pipelines.data.positives import (
    CheckedInteractions,
    PositiveCounts,
    Positives,
    check_interactions,
    table_columns,
    take_positives,
)
from pipelines.data.rejects import Faults, settle_rejects
from pipelines.data.tables import SourceTable, read_table, wrap_frame
from towers.errors import ConfigError, DataError
from towers.schema import Schema, Side

SIDES: tuple[Side, Side] = ("user", "item")


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """What became of the rows of one table."""

    table: str
    rows: int
    """Rows read, those at fault included; empty CSV lines are none."""
    kept: int
    empty_lines: int = 0
    rejected: Mapping[str, int]
    """Rows at fault, by reason."""
    quarantine: Path | None = None
    """Where the rows at fault were written."""
    not_positive: int = 0
    """Interactions with a rating below `positive_rating`."""
    merged: int = 0
    """Later interactions of a user with the same item, merged into the earliest."""
    in_training: int = 0
    """Test interactions of a user with an item that it also has in the interactions table."""

    def lines(self) -> list[str]:
        """Say it, one fact a line."""
        facts = [
            (self.empty_lines, "empty lines"),
            (self.not_positive, "not positive: rating below positive_rating"),
            (self.merged, "repeats of a user and an item, merged into the earliest"),
            (self.in_training, "left out of the test: the user has the item in training"),
            *((count, f"rejected: {reason}") for reason, count in self.rejected.items()),
        ]
        lines = [f"{self.table}: {self.rows:,} rows read, {self.kept:,} kept"]
        lines += [f"  {count:,} {fact}" for count, fact in facts if count]
        return lines + ([f"  rejected rows are in {self.quarantine}"] if self.quarantine else [])


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """What became of the rows of every table: each was kept, or is counted with its reason."""

    tables: tuple[TableReport, ...]

    def lines(self) -> list[str]:
        """Say it, one fact a line."""
        return [line for table in self.tables for line in table.lines()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """The clean tables of a run."""

    interactions: pd.DataFrame
    """Positives, one row a user_id and item_id (int64, or str), the earliest; with `timestamp`
    (float64) if there is one, in its order; and `weight` (float32), 1 if there is none."""
    test: pd.DataFrame | None
    """Test interactions in the same form, without those that are in `interactions`."""
    users: pd.DataFrame
    """One row a user: its id, then its other columns; see `pipelines.data.entities`."""
    items: pd.DataFrame
    """One row an item, likewise."""
    report: ReadReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """The tables as they were given."""

    interactions: SourceTable
    users: SourceTable | None
    items: SourceTable | None
    test: SourceTable | None

    def entities(self, side: Side) -> SourceTable | None:
        """The table of a side."""
        return self.users if side == "user" else self.items


def read_tables(config: RunConfig, *, quarantine_dir: Path | None = None) -> Tables:
    """Read the tables that `config` names, and clean them.

    Rows at fault are written to `quarantine_dir`/<table>.csv if `data.on_bad_rows` is
    `quarantine`.

    Raises:
        ConfigError: a path or a column is missing, or an encoding unknown.
        DataError: a file cannot be read, a row is at fault (and `on_bad_rows` is `fail`), ids
            have several types, or fewer than two users or items are left.
    """
    data, test = config.data, config.split.test
    sources = Sources(
        interactions=read_table(data.interactions, name="interactions"),
        users=read_table(data.users, name="users") if data.users else None,
        items=read_table(data.items, name="items") if data.items else None,
        test=read_table(test, name="test") if test else None,
    )
    return _clean(config, sources, quarantine_dir=quarantine_dir)


def tables_from_frames(
    config: RunConfig,
    *,
    interactions: pd.DataFrame,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    test: pd.DataFrame | None = None,
    quarantine_dir: Path | None = None,
) -> Tables:
    """Clean tables that are given as DataFrames; paths in `config` are not read.

    Raises:
        ConfigError: `config` names a table that is not given, or a column is missing.
        DataError: as for `read_tables`; rows are named by their position, as `iloc` counts.
    """
    expected = {
        "users": (config.data.users, users),
        "items": (config.data.items, items),
        "test": (config.split.test, test),
    }
    for name, (table, frame) in expected.items():
        if table is not None and frame is None:
            raise ConfigError(
                f"{name}: the configuration names such a table, but received no DataFrame; pass "
                f"{name}=..., or remove the table from the configuration"
            )
    sources = Sources(
        interactions=wrap_frame(interactions, name="interactions"),
        users=None if users is None else wrap_frame(users, name="users"),
        items=None if items is None else wrap_frame(items, name="items"),
        test=None if test is None else wrap_frame(test, name="test"),
    )
    return _clean(config, sources, quarantine_dir=quarantine_dir)


def _clean(config: RunConfig, sources: Sources, *, quarantine_dir: Path | None) -> Tables:
    """Check every row of every table, settle those at fault, and build the clean tables."""
    require_all_columns(config, sources)
    entities, interactions = _check_rows(config, sources)
    files = settle_rejects(
        [found.rejects for found in entities.values()] + [found.rejects for found in interactions],
        on_bad_rows=config.data.on_bad_rows,
        quarantine_dir=quarantine_dir,
    )
    users, items = (
        entities[side].rows
        if side in entities
        else entities_from_ids(
            pd.concat([found.rows[f"{side}_id"] for found in interactions]),
            id_column=config.schema.id_column(side),
        )
        for side in SIDES
    )
    positives = [take_positives(interactions[0].rows)]
    positives += [take_positives(found.rows, seen=positives[0].rows) for found in interactions[1:]]
    for found, taken in zip(interactions, positives, strict=True):
        check_any(taken.counts, where=found.rejects.source.where)
    _check_sides(positives[0], where=sources.interactions.where)
    reports = [report_entities(found, files=files) for found in entities.values()]
    reports += [
        report_interactions(
            found.rejects,
            taken.counts,
            rows=_n_rows(found.rejects.source),
            empty_lines=found.rejects.source.empty_lines,
            files=files,
        )
        for found, taken in zip(interactions, positives, strict=True)
    ]
    return Tables(
        interactions=positives[0].rows,
        test=positives[1].rows if sources.test else None,
        users=users,
        items=items,
        report=ReadReport(tables=tuple(reports)),
    )


def _check_rows(
    config: RunConfig, sources: Sources
) -> tuple[dict[Side, CheckedEntities], list[CheckedInteractions]]:
    """Check the rows of the entity tables that are given, then those of the interactions."""
    schema = config.schema
    id_kinds = {side: decide_id_kind(_id_columns(config, sources, side)) for side in SIDES}
    entities = check_all_entities(sources, schema=schema, id_kinds=id_kinds)
    known_ids = {
        side: pd.Index(found.rows[schema.id_column(side)]) for side, found in entities.items()
    }
    interactions = [
        check_interactions(source, table, id_kinds=id_kinds, known_ids=known_ids)
        for source, table in _interaction_tables(config, sources)
    ]
    return entities, interactions


def check_all_entities(
    sources: Sources, *, schema: Schema, id_kinds: Mapping[Side, IdKind]
) -> dict[Side, CheckedEntities]:
    """Check the rows of the tables of users and items that are given."""
    return {
        side: check_entities(table, schema=schema, side=side, id_kind=id_kinds[side])
        for side in SIDES
        if (table := sources.entities(side)) is not None
    }


def require_all_columns(config: RunConfig, sources: Sources) -> None:
    """Refuse tables that lack a column which the configuration names."""
    for source, table in _interaction_tables(config, sources):
        source.require(table_columns(table))
    for side in SIDES:
        require_columns(sources.entities(side), schema=config.schema, side=side)


def _interaction_tables(
    config: RunConfig, sources: Sources
) -> list[tuple[SourceTable, InteractionsTable]]:
    """Pair each table of interactions with its description."""
    described = [(sources.interactions, config.data.interactions)]
    if sources.test is not None:
        described.append((sources.test, config.split.test or config.data.interactions))
    return described


def _id_columns(config: RunConfig, sources: Sources, side: Side) -> list[IdColumn]:
    """List every column that holds the ids of a side."""
    columns = [
        IdColumn(source=source, column=table.user if side == "user" else table.item)
        for source, table in _interaction_tables(config, sources)
    ]
    entities = sources.entities(side)
    if entities is not None:
        columns.append(IdColumn(source=entities, column=config.schema.id_column(side)))
    return columns


def check_any(positives: PositiveCounts, *, where: str) -> None:
    """Refuse a table of interactions of which nothing is left.

    Raises:
        DataError: with the reasons.
    """
    if positives.kept == 0:
        raise DataError(
            f"{where}: expected at least one positive interaction, received none; of the rows "
            f"without a fault, {positives.not_positive:,} have a rating below positive_rating and "
            f"{positives.in_training:,} repeat a training interaction; check the table and "
            "positive_rating"
        )


def _check_sides(positives: Positives, *, where: str) -> None:
    """Refuse interactions of one user or one item only: there is nothing to tell apart."""
    for side in SIDES:
        ids = positives.rows[f"{side}_id"]
        if ids.nunique() == 1:
            raise only_one(side, ids.tolist()[0], where=where)


def only_one(side: Side, id_: object, *, where: str) -> DataError:
    """The error of interactions of one user or one item only."""
    return DataError(
        f"{where}: expected positives of at least two {side}s, received those of one, "
        f"{id_!r}; check which column holds the {side} ids"
    )


def report_entities(found: CheckedEntities, *, files: Mapping[str, Path]) -> TableReport:
    """Account for the rows of a table of users or items."""
    source = found.rejects.source
    return TableReport(
        table=source.name,
        rows=_n_rows(source),
        kept=len(found.rows),
        empty_lines=source.empty_lines,
        rejected=found.rejects.counts(),
        quarantine=files.get(source.name),
    )


def report_interactions(
    rejects: Faults,
    counts: PositiveCounts,
    *,
    rows: int,
    files: Mapping[str, Path],
    empty_lines: int = 0,
) -> TableReport:
    """Account for the rows of a table of interactions."""
    return TableReport(
        table=rejects.name,
        rows=rows,
        kept=counts.kept,
        empty_lines=empty_lines,
        rejected=rejects.counts(),
        quarantine=files.get(rejects.name),
        not_positive=counts.not_positive,
        merged=counts.merged,
        in_training=counts.in_training,
    )


def _n_rows(source: SourceTable) -> int:
    """The rows of a table, those at fault included."""
    return len(source.frame) + len(source.malformed)
