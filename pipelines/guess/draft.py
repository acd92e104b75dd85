"""Draft: what the tables were taken for, column by column, with reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.guess.guess_kinds import Guess
from pipelines.guess.read_tables import Table
from towers.features.schema import Side

SURE, LIKELY = 0.9, 0.6
"""From here on a guess is called sure, or likely."""


def how_sure(sure: float) -> str:
    """Say how sure a guess is."""
    if sure >= SURE:
        return "sure"
    return "likely" if sure >= LIKELY else "a guess"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was said of one column."""

    table: str
    column: str
    taken_as: str
    why: str
    sure: float

    def cells(self) -> tuple[str, str, str, str, str]:
        """It as the cells of a row."""
        return self.table, self.column, self.taken_as, self.why, how_sure(self.sure)


@dataclass(frozen=True, kw_only=True)
class Role:
    """A column of the interactions with a meaning, and the settings that go with it."""

    column: str
    why: str
    sure: float
    settings: dict[str, Any] = field(default_factory=dict)
    comments: tuple[str, ...] = ()
    is_since_1970: bool = True
    """Of times: whether the unit of numbers is known."""


@dataclass(frozen=True, kw_only=True)
class FeatureDraft:
    """A column as a feature, or the reason why it is none."""

    column: str
    guess: Guess


@dataclass(frozen=True, kw_only=True, eq=False)
class EntityDraft:
    """The table of a side: one of its own, or the rows of the interactions."""

    side: Side
    id: str
    table: Table | None
    """None where it is taken from the interactions."""
    why: str
    sure: float
    features: tuple[FeatureDraft, ...]
    keep: tuple[str, ...] = ()
    """Columns that no feature reads, but that tell a reader what an item is."""
    available: Role | None = None
    """Of items: the column with the time from which each could be chosen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Draft:
    """What a configuration is to say."""

    interactions: Table
    user: Role
    item: Role
    time: Role | None
    rating: Role | None
    event: Role | None
    entities: dict[Side, EntityDraft]
    test: Table | None
    others: tuple[FeatureDraft, ...]
    """Columns of the interactions that say something of neither side."""
    left_out: tuple[tuple[Path, str], ...]
    """Files that are no table of this run, and why."""

    @property
    def tables(self) -> list[Table]:
        """The tables that are used."""
        own = [one.table for one in self.entities.values() if one.table is not None]
        return [self.interactions, *own, *([] if self.test is None else [self.test])]

    def said(self) -> list[Said]:
        """What was said of every column, table by table."""
        name = self.interactions.name
        roles = (
            (self.user, "user id"),
            (self.item, "item id"),
            (self.time, "time"),
            (self.rating, "rating"),
            (self.event, "behaviour"),
        )
        lines = [
            Said(table=name, column=role.column, taken_as=what, why=role.why, sure=role.sure)
            for role, what in roles
            if role is not None
        ]
        for entity in self.entities.values():
            table = name if entity.table is None else entity.table.name
            if entity.table is not None:
                lines.append(
                    Said(
                        table=table,
                        column=entity.id,
                        taken_as=f"{entity.side} id",
                        why=entity.why,
                        sure=entity.sure,
                    )
                )
            if (role := entity.available) is not None:
                lines.append(
                    Said(
                        table=table,
                        column=role.column,
                        taken_as="from when on there",
                        why=role.why,
                        sure=role.sure,
                    )
                )
            lines += [_of_feature(one, table, side=entity.side) for one in entity.features]
        return lines + [_of_feature(one, name, side=None) for one in self.others]


def _of_feature(one: FeatureDraft, table: str, *, side: Side | None) -> Said:
    """What was said of a column that may be a feature."""
    kind = one.guess.kind
    taken_as = "left out" if kind is None else f"{side} feature, {kind}"
    return Said(
        table=table, column=one.column, taken_as=taken_as, why=one.guess.why, sure=one.guess.sure
    )
