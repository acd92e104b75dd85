"""Inputs: the tables of a run as they are given, in files or as DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipelines.behaviours import Behaviours
from pipelines.config import RunConfig
from pipelines.data.columns.ids import IdColumn, IdKind, decide_id_kind
from pipelines.data.entities import (
    Availability,
    CheckedEntities,
    check_entities,
    read_columns,
    require_columns,
)
from pipelines.data.sources.frame_source import Frame, FrameSource
from pipelines.data.sources.joined_source import JoinedSource
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Source
from pipelines.data.steps.chunks import INTERACTIONS, TEST, Chunks
from pipelines.data.steps.parse import table_columns
from pipelines.data.take_apart import take_apart
from pipelines.table_config import EntityTable, FileFormat, InteractionsTable
from towers.errors import ConfigError
from towers.features.schema import SIDES, Schema, Side

Frames = Mapping[str, Frame]
"""`interactions` and maybe `users`, `items` and `test`, in place of files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Interactions in chunks; users and items, where they have tables, in memory."""

    schema: Schema
    on_bad_rows: Literal["fail", "quarantine"]
    interactions: Mapping[str, Chunks]
    """The interactions and, where they have a table of their own, the test, by name."""
    entities: Mapping[Side, Source]
    """The tables of users and items that are given."""
    behaviours: Behaviours
    """What users do, by name."""
    taken_apart: frozenset[Side] = frozenset()
    """The sides whose tables are taken from the rows of the interactions."""
    items: EntityTable | None = None
    """What the configuration says of the table of items."""

    @classmethod
    def open(
        cls, config: RunConfig, *, frames: Frames | None, chunk_rows: int | None, work: Path
    ) -> Inputs:
        """Open every table; interactions in Parquet stay on disk.

        Args:
            config: names the files, and what their columns mean.
            frames: the tables themselves, in place of the files.
            chunk_rows: how many interactions are read at a time; None reads all at once.
            work: the folder where large interactions in CSV or JSON lines are staged, if they are
                not read all at once, and where tables that they hold are taken apart.

        Raises:
            ConfigError: a table, a path or a column is missing, or an encoding is unknown.
            DataError: a file cannot be read, or the files of a table do not fit together.
        """
        described = _described(config, frames)
        apart = _apart(described, frames)
        stage = None if chunk_rows is None else work
        sources = {
            name: _open(table, name=name, frames=frames, stage=stage)
            for name, table in described.items()
            if name not in {f"{side}s" for side in apart}
        }
        if config.data.more_interactions:
            joined = _join(sources[INTERACTIONS], config.data.tables, frames=frames, stage=stage)
            sources[INTERACTIONS], described[INTERACTIONS] = joined, joined.table
        inputs = cls(
            schema=config.schema,
            on_bad_rows=config.data.on_bad_rows,
            interactions={
                name: Chunks(
                    source=sources[name],
                    table=table,
                    behaviours=config.data.kinds,
                    context=config.schema.context_features,
                    chunk_rows=chunk_rows or max(sources[name].n_rows, 1),
                )
                for name, table in described.items()
                if isinstance(table, InteractionsTable)
            },
            behaviours=config.data.kinds,
            entities={side: sources[f"{side}s"] for side in SIDES if f"{side}s" in sources},
            items=config.data.items,
        )
        if apart:
            inputs = inputs._take_apart(apart, work=work)
        inputs._require_columns()
        return inputs

    def _take_apart(self, tables: Mapping[Side, EntityTable], *, work: Path) -> Inputs:
        """Add the tables of users and items that the rows of the interactions hold."""
        chunks = self.interactions[INTERACTIONS]
        taken = {
            side: take_apart(
                chunks,
                table,
                side=side,
                columns=[*read_columns(self.schema, side), *table.keep, *_dated(table)],
                work=work,
            )
            for side, table in tables.items()
        }
        return replace(self, entities={**self.entities, **taken}, taken_apart=frozenset(taken))

    def id_kinds(self) -> tuple[dict[Side, IdKind], list[str]]:
        """Decide what the ids of users and of items are, the same in all tables.

        Returns the kinds, and what the report is to say about them.

        Raises:
            DataError: ids have several types.
        """
        columns = {side: list(self._id_columns(side)) for side in SIDES}
        kinds = {side: decide_id_kind(found) for side, found in columns.items()}
        notes = [ids.explain_text() for side in SIDES for ids in columns[side]]
        return kinds, [note for note in notes if note is not None]

    def check_entities(self, id_kinds: Mapping[Side, IdKind]) -> dict[Side, CheckedEntities]:
        """Check the rows of the tables of users and items."""
        return {
            side: check_entities(
                table,
                schema=self.schema,
                side=side,
                id_kind=id_kinds[side],
                availability=self._availability if side == "item" else None,
            )
            for side, table in self.entities.items()
        }

    @property
    def _availability(self) -> Availability | None:
        """Where the table of items says from when on they could be chosen, if it does."""
        times = self.interactions[INTERACTIONS].times
        if self.items is None or self.items.available_from is None or times is None:
            return None
        return Availability(
            column=self.items.available_from,
            format=self.items.available_format,
            in_seconds=times.are_dates or times.format is not None,
        )

    def _require_columns(self) -> None:
        """Refuse tables that lack a column which the configuration names."""
        for chunks in self.interactions.values():
            self._refuse_misplaced(chunks)
            chunks.source.require(table_columns(chunks.table, chunks.context))
        for side in SIDES:
            require_columns(self.entities.get(side), schema=self.schema, side=side)
        if "item" in self.entities:
            self.entities["item"].require(_dated(self.items))

    def _refuse_misplaced(self, chunks: Chunks) -> None:
        """Refuse a context that is a column of users or items instead.

        Raises:
            ConfigError: with the remedy.
        """
        for feature in chunks.context:
            for side, table in self.entities.items():
                if feature.column in table.columns and feature.column not in chunks.source.columns:
                    raise ConfigError(
                        f"context.features: expected columns of {chunks.source.where}, received "
                        f"{feature.column!r}, which is one of the {side}s; move the feature to "
                        f"{side}.features"
                    )

    def _id_columns(self, side: Side) -> Iterator[IdColumn]:
        """Every column that decides on the ids of a side, or as much of it as tells their kind.

        Where a side has a table, interactions with other ids are rejected: those of a CSV file do
        not decide.
        """
        for chunks in self.interactions.values():
            table = chunks.table
            has_table = side in self.entities and side not in self.taken_apart
            if has_table and not chunks.source.typed:
                continue
            yield chunks.sample_ids(table.user if side == "user" else table.item)
        if side in self.entities and side not in self.taken_apart:
            source, column = self.entities[side], self.schema.id_column(side)
            yield IdColumn(source=source.read(0, source.n_rows, columns=[column]), column=column)


def _dated(table: EntityTable | None) -> list[str]:
    """The column of the time from which items could be chosen, if there is one."""
    return [] if table is None or table.available_from is None else [table.available_from]


def _described(config: RunConfig, frames: Frames | None) -> dict[str, FileFormat]:
    """The tables that are given, and what is said of each."""
    data = config.data
    found: dict[str, FileFormat | None] = {
        INTERACTIONS: data.interactions,
        "users": data.users,
        "items": data.items,
        TEST: config.split.test,
    }
    others = {
        "users": EntityTable(id=config.schema.user_id),
        "items": EntityTable(id=config.schema.item_id),
        TEST: data.interactions,
    }
    if frames is not None:
        found |= {name: found[name] or others[name] for name in frames if name in others}
    return {name: table for name, table in found.items() if table is not None}


def _apart(described: Mapping[str, FileFormat], frames: Frames | None) -> dict[Side, EntityTable]:
    """The tables that are to be taken from the interactions.

    Raises:
        ConfigError: one of them is given as a DataFrame, too.
    """
    found: dict[Side, EntityTable] = {}
    for side in SIDES:
        table = described.get(f"{side}s")
        if not isinstance(table, EntityTable) or table.source == "file":
            continue
        if frames is not None and f"{side}s" in frames:
            raise ConfigError(
                f'data.{side}s: expected no DataFrame with source = "interactions", received one; '
                "pass no such table, or remove source"
            )
        found[side] = table
    return found


def _join(
    first: Source,
    tables: Sequence[InteractionsTable],
    *,
    frames: Frames | None,
    stage: Path | None,
) -> JoinedSource:
    """Open the further tables of interactions, and join them to the first.

    Raises:
        ConfigError: the tables are DataFrames, or do not fit together.
    """
    if frames is not None:
        raise ConfigError(
            "data.more_interactions: expected files, received DataFrames; pass one DataFrame with "
            "a column of events, and name it in data.interactions.event"
        )
    more = [
        open_source(table, name=f"more_interactions {number}", stage=stage)
        for number, table in enumerate(tables[1:], start=1)
    ]
    return JoinedSource.of([first, *more], tables)


def _open(table: FileFormat, *, name: str, frames: Frames | None, stage: Path | None) -> Source:
    """Open a table's files, or take its DataFrame."""
    if frames is None:
        is_staged = isinstance(table, InteractionsTable)  # others are read whole in any case
        return open_source(table, name=name, stage=stage if is_staged else None)
    if name not in frames:
        raise ConfigError(
            f"{name}: the configuration names such a table, but received no DataFrame; pass "
            f"{name}=..., or remove the table from the configuration"
        )
    return FrameSource.of(frames[name], name=name, table=table)
