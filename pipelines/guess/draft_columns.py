"""Draft what the columns of the interactions are: times, ratings, and what belongs to whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.guess.count_owners import Agreement, agreement, one_each
from pipelines.guess.draft import Draft, EntityDraft, FeatureDraft, Role
from pipelines.guess.guess_kinds import Guess, guess_kind
from pipelines.guess.guess_roles import guess_available, guess_event, guess_rating, guess_time
from pipelines.guess.name_hints import COUNTS, ITEM_FEATURES, USER_FEATURES, fits, words
from pipelines.guess.profile_columns import Column
from pipelines.guess.read_tables import Table
from towers.features.schema import SIDES, Side

MOST_WORDS_SHOWN = 20
"""A text with more words on average is too long to be shown."""
FEW_ROWS = 20


@dataclass(kw_only=True, eq=False)
class _Apart:
    """The columns of a wide table by whose they are."""

    features: dict[Side, list[FeatureDraft]] = field(
        default_factory=lambda: {side: [] for side in SIDES}
    )
    keep: dict[Side, list[str]] = field(default_factory=lambda: {side: [] for side in SIDES})
    others: list[FeatureDraft] = field(default_factory=list)


def draft_columns(
    interactions: Table,
    ids: dict[Side, Role],
    entities: dict[Side, EntityDraft],
    *,
    test: Table | None,
    left: Sequence[tuple[Path, str]],
) -> Draft:
    """Find times, ratings and behaviours, and take the other columns apart.

    Args:
        interactions: the table.
        ids: its columns of ids.
        entities: the sides that have a table of their own.
        test: the table of test interactions.
        left: the files that are left out.
    """
    taken = {role.column for role in ids.values()}
    rest = [column for column in interactions.columns if column.name not in taken]
    owned = {column.name: _owners(column, interactions, ids) for column in rest}
    free = [c for c in rest if not any(found.belongs for found in owned[c.name].values())]
    time = guess_time(free) or guess_time([c for c in rest if _is_owned_time(c)])
    free = [column for column in free if time is None or column.name != time.column]
    event = guess_event(free)
    rating = guess_rating(free) if event is None else None
    roles = {role.column for role in (time, rating, event) if role is not None}
    rest = [column for column in rest if column.name not in roles]
    apart = _take_apart(rest, owned, interactions, ids, has_table=frozenset(entities))
    found = entities | {one.side: one for one in _drafts(apart, ids)}
    if time is not None and (items := found.get("item")) is not None:
        own = {one.column for one in items.features}
        columns = (items.table or interactions).columns
        available = guess_available([one for one in columns if one.name in own], time)
        found["item"] = dataclasses.replace(items, available=available)
    return Draft(
        interactions=interactions,
        user=ids["user"],
        item=ids["item"],
        time=time,
        rating=rating,
        event=event,
        entities={side: found[side] for side in SIDES if side in found},
        test=test,
        others=tuple(apart.others),
        left_out=tuple(left),
    )


def _take_apart(
    columns: Sequence[Column],
    owned: dict[str, dict[Side, Agreement]],
    interactions: Table,
    ids: dict[Side, Role],
    *,
    has_table: frozenset[Side],
) -> _Apart:
    """Say of each column whose it is; a side with a table of its own takes none."""
    apart = _Apart()
    for column in columns:
        side, guess = _assign(column, owned[column.name], interactions, ids)
        if side is None or side in has_table:
            left = _left(guess, side)
            apart.others.append(FeatureDraft(column=column.name, guess=left))
            continue
        apart.features[side].append(FeatureDraft(column=column.name, guess=guess))
        if guess.kind is None and _is_shown(column):
            apart.keep[side].append(column.name)
    return apart


def _drafts(apart: _Apart, ids: dict[Side, Role]) -> Iterator[EntityDraft]:
    """The sides that the interactions say something of."""
    for side in SIDES:
        features, keep = apart.features[side], apart.keep[side]
        if keep or any(one.guess.kind is not None for one in features):
            yield EntityDraft(
                side=side,
                id=ids[side].column,
                table=None,
                why=ids[side].why,
                sure=ids[side].sure,
                features=tuple(features),
                keep=tuple(keep),
            )


def _is_owned_time(column: Column) -> bool:
    """Whether a column that belongs to a side may be the times after all: by its name."""
    return any(word in {"timestamp", "time"} for word in words(column.name))


def _owners(column: Column, table: Table, ids: dict[Side, Role]) -> dict[Side, Agreement]:
    """How far a column agrees within the rows of each user, and of each item."""
    return {side: agreement(table.column(role.column), column) for side, role in ids.items()}


def _assign(
    column: Column, owned: dict[Side, Agreement], table: Table, ids: dict[Side, Role]
) -> tuple[Side | None, Guess]:
    """Say whose column it is, and what it is there."""
    side = max(SIDES, key=lambda one: owned[one].beyond_chance)
    found = owned[side]
    if not found.belongs:
        hinted = _by_name(column, owned)
        if hinted is None:
            return None, _of_neither(column, owned)
        guess = guess_kind(one_each(table.column(ids[hinted].column), column))
        why = f"{guess.why}; by its name, since no {hinted} has rows enough to count"
        return hinted, Guess(kind=guess.kind, why=why, sure=0.4, settings=guess.settings)
    guess = guess_kind(one_each(table.column(ids[side].column), column))
    why = f"{guess.why}; the same in {found.share:.0%} of {_a(side)}'s rows"
    sure = round(guess.sure * min(0.5 + found.beyond_chance / 2, 1.0), 2)
    return side, Guess(
        kind=guess.kind, why=why, sure=sure, settings=guess.settings, hint=guess.hint
    )


def _by_name(column: Column, owned: dict[Side, Agreement]) -> Side | None:
    """Whose column it is by its name, where nothing can be counted."""
    if any(found.n_rows >= FEW_ROWS for found in owned.values()):
        return None
    if fits(column.name, USER_FEATURES):
        return "user"
    return "item" if fits(column.name, ITEM_FEATURES) else None


def _a(side: Side) -> str:
    return "an item" if side == "item" else "a user"


def _of_neither(column: Column, owned: dict[Side, Agreement]) -> Guess:
    """A column that differs from row to row."""
    shares = ", ".join(f"{one.share:.0%} of {_a(side)}'s" for side, one in owned.items())
    kind = guess_kind(column)
    why = f"differs from row to row: the same in {shares} rows"
    if kind.kind is None and kind.sure == 1.0:
        return kind
    if kind.kind is None:
        why = f"{kind.why}; {why}"
    if kind.kind not in {"categorical", "numeric"}:
        return Guess(kind=None, why=why, sure=0.8)
    hint = ""
    if fits(column.name, COUNTS) and column.numbers is not None and column.numbers.min() > 0:
        hint = f"weight = {column.name!r} in data.interactions would weigh positives by it"
    settings = {"kind": kind.kind, **kind.settings}
    return Guess(kind=None, why=why, sure=0.8, settings=settings, hint=hint)


def _left(guess: Guess, side: Side | None) -> Guess:
    """A column of the interactions that is no feature."""
    if side is None:
        return guess
    why = f"of the {side}, who have a table of their own; {guess.why}"
    return Guess(kind=None, why=why, sure=guess.sure, hint="move the column to that table")


def _is_shown(column: Column) -> bool:
    """Whether a column tells a reader what an item is, such as its title."""
    return not column.has_lists and column.mean_words <= MOST_WORDS_SHOWN and column.n_distinct > 1
