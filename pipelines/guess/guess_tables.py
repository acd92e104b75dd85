"""Guess which table is which, and draft a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.guess.draft import Draft, EntityDraft, FeatureDraft, Role
from pipelines.guess.draft_columns import draft_columns
from pipelines.guess.guess_kinds import guess_kind
from pipelines.guess.guess_roles import HINTS, guess_ids, guess_time
from pipelines.guess.name_hints import file_fits, names_id, words
from pipelines.guess.profile_columns import Column
from pipelines.guess.read_tables import Table
from towers.errors import DataError
from towers.features.schema import SIDES, Side

UNIQUE = 0.999
"""A key's values are different in this share of the rows; the rest are faults."""
MATCHES = 0.3
"""A table is a side's if, of all ids there and here, this share is in both."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Key:
    """A table of users or items: how well its key is the ids of a side."""

    table: Table
    column: Column
    match: float
    named: float
    is_called: bool

    @property
    def score(self) -> float:
        """How well the table is that of the side."""
        return self.match + self.named + self.is_called


def guess_tables(tables: Sequence[Table], *, left_out: Sequence[tuple[Path, str]] = ()) -> Draft:
    """Guess which of the tables has the interactions, and what the columns of all are.

    Raises:
        DataError: there is no table with two columns of ids that come again.
    """
    left = list(left_out)
    interactions = _choose_interactions(tables)
    same = [t for t in tables if t is not interactions and _is_like(t, interactions)]
    test = _choose_test(same, interactions)
    for table in same:
        if table is not test:
            why = f"has the columns of {interactions.name}; put both into one folder to read both"
            left.append((table.path, why))
    others = [t for t in tables if t is not interactions and t not in same]
    owners = {
        side: {
            column.name: max((k.score for k in _keys(others, column, side)), default=0.0)
            for column in interactions.columns
            if column.may_be_id
        }
        for side in SIDES
    }
    ids = guess_ids(interactions.columns, owners)
    if len(ids) < len(SIDES):
        raise DataError(
            f"{interactions.path}: expected two columns of ids, of users and of items, received "
            f"{list(_names(interactions))}; name the table of interactions among the files"
        )
    entities = _entities(others, interactions, ids)
    used = {id(one.table) for one in entities.values()}
    for table in others:
        if id(table) not in used:
            why = "its ids are neither those of the users nor of the items"
            if "lists" in table.format:
                why = f"lists, as interactions have: name it without {interactions.name} to take it"
            left.append((table.path, why))
    return draft_columns(interactions, ids, entities, test=test, left=left)


def _choose_test(tables: Sequence[Table], interactions: Table) -> Table | None:
    """The table that is called a test; of several, the one whose name is most like the others'."""
    named = [table for table in tables if "test" in words(table.name)]
    like = {*words(interactions.name)}
    return max(named, key=lambda table: len(like & {*words(table.name)}), default=None)


def _is_like(table: Table, interactions: Table) -> bool:
    """Whether a table has interactions, too: the same columns, and no key where nobody names it."""
    has_key = not table.has_header and any(map(_is_key, table.columns))
    return _names(table) == _names(interactions) and not has_key


def _names(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns)


def _choose_interactions(tables: Sequence[Table]) -> Table:
    """The table with the interactions: two columns of ids that come again, times, ratings.

    Raises:
        DataError: there is none.
    """

    def rank(table: Table) -> tuple[float, int]:
        repeated = [c for c in table.columns if c.may_be_id and c.distinct_share < UNIQUE]
        named = [
            max((names_id(c.name, HINTS[side]) for c in table.columns), default=0.0)
            for side in SIDES
        ]
        score = 1.0 * (min(named) >= 0.6) + 0.5 * file_fits(table.path, "interaction")  # noqa: PLR2004
        score += 0.5 * (len(repeated) >= 2) - 0.5 * ("test" in words(table.name))  # noqa: PLR2004
        score -= 0.5 * any(_is_key(c) for c in table.columns[:1])
        score += 0.25 * (guess_time(table.columns) is not None)
        return score, table.n_rows

    candidates = [t for t in tables if sum(c.may_be_id for c in t.columns) >= len(SIDES)]
    if not candidates:
        raise DataError(
            "expected a table of interactions, with a column of user ids and one of item ids, "
            f"received {[table.name for table in tables]}; name it among the files"
        )
    return max(candidates, key=rank)


def _is_key(column: Column) -> bool:
    """Whether a column has one row an id."""
    is_given = column.missing_share <= 1 - UNIQUE
    return column.may_be_id and is_given and column.distinct_share >= UNIQUE


def _keys(tables: Sequence[Table], ids: Column, side: Side) -> list[Key]:
    """The tables whose key is a column of ids, as far as names, files and values tell."""
    known = ids.distinct
    found = []
    for table in tables:
        for column in filter(_is_key, table.columns):
            own = column.distinct
            both = len(own.intersection(known))
            covered, used = both / max(len(known), 1), both / max(len(own), 1)
            match = covered * (0.5 + 0.5 * used)
            other: Side = "item" if side == "user" else "user"
            called = file_fits(table.path, side) - file_fits(table.path, other)
            named = names_id(column.name, HINTS[side]) - names_id(column.name, HINTS[other])
            key = Key(
                table=table,
                column=column,
                match=match,
                named=max(named, 0.0) + 0.5 * (column.name == ids.name and table.has_header),
                is_called=called > 0,
            )
            if match >= MATCHES and called >= 0 and named >= 0:
                found.append(key)
    return found


def _entities(
    tables: Sequence[Table], interactions: Table, ids: dict[Side, Role]
) -> dict[Side, EntityDraft]:
    """The table of each side, of those that there are."""
    found: dict[Side, EntityDraft] = {}
    keys = {
        side: _keys(tables, interactions.column(role.column), side) for side, role in ids.items()
    }
    pairs = [(key.score, side, key) for side, some in keys.items() for key in some]
    for _, side, key in sorted(pairs, key=lambda pair: -pair[0]):
        if side in found or any(one.table is key.table for one in found.values()):
            continue
        features = [
            FeatureDraft(column=column.name, guess=guess_kind(column))
            for column in key.table.columns
            if column is not key.column
        ]
        found[side] = EntityDraft(
            side=side,
            id=key.column.name,
            table=key.table,
            why=f"one row each; {key.match:.0%} match with {ids[side].column}",
            sure=min(0.5 + 0.5 * key.match, 0.97),
            features=tuple(features),
        )
    return found
