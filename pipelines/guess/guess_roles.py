"""Guess which columns of the interactions are ids, times, ratings and behaviours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipelines.data.columns.parsed import parse_numbers
from pipelines.guess.draft import Role
from pipelines.guess.name_hints import (
    AVAILABLE,
    EVENT,
    ITEM,
    LABEL,
    LOOKS,
    NEGATIVES,
    RATING,
    TARGETS,
    TIME,
    USER,
    fits,
    names_id,
    words,
)
from pipelines.guess.profile_columns import Column
from towers.features.schema import Side

HINTS: dict[Side, frozenset[str]] = {"user": USER, "item": ITEM}
COMES_AGAIN = 0.9
"""Ids of interactions come again: fewer of their values are different."""
MOST_GRADES = 25
"""Ratings have at most so many different values."""
HIGHEST = 100.0
MOST_EVENTS = 20
UPPER = 0.7
"""A rating is positive from this share of its scale on: 4 of 1 to 5, 8 of 1 to 10."""
FEW_TIMES = 0.05
"""A column of dates with fewer different values for each row may be something else, by its name."""


def guess_ids(columns: Sequence[Column], owners: dict[Side, dict[str, float]]) -> dict[Side, Role]:
    """Guess the columns of user ids and of item ids; fewer than two if there are none.

    `owners` says for each side how far the ids of a table of its own are those of a column.
    """
    candidates = [column for column in columns if column.may_be_id and column.n_distinct > 1]
    named = {
        side: {column.name: names_id(column.name, hints) for column in candidates}
        for side, hints in HINTS.items()
    }
    scores = {
        side: {
            one.name: named[side][one.name] + owners[side].get(one.name, 0.0) for one in candidates
        }
        for side in HINTS
    }
    best: tuple[float, tuple[int, int], Column | None, Column | None] = (-1.0, (0, 0), None, None)
    for user in candidates:
        for item in candidates:
            if user is item:
                continue
            score = scores["user"][user.name] + scores["item"][item.name]
            # without any hint: the first two columns with many values that come again, users first
            repeats = sum(_repeats(one) for one in (user, item))
            places = (-user.place, -item.place)
            found = (round(score + 0.2 * repeats, 3), places, user, item)
            if best[2] is None or found[:2] > best[:2]:
                best = found
    _, _, user_column, item_column = best
    if user_column is None or item_column is None:
        return {}
    return {
        "user": _id_role(user_column, named["user"], owners["user"], side="user"),
        "item": _id_role(item_column, named["item"], owners["item"], side="item"),
    }


def _repeats(column: Column) -> float:
    """Whether a column has many values that come again, as ids of interactions have."""
    if column.unit is not None or column.n_distinct <= 2:  # noqa: PLR2004
        return 0.0
    many = min(float(np.log10(column.n_distinct)) / 3, 1.0)
    return many if column.distinct_share < COMES_AGAIN else 0.0


def _id_role(
    column: Column, named: dict[str, float], owners: dict[str, float], *, side: Side
) -> Role:
    """The column of a side's ids, and why it is that."""
    counted = f"{column.n_distinct:,} different values"
    if named[column.name] >= 0.6:  # noqa: PLR2004
        return Role(column=column.name, why=f"by its name; {counted}", sure=0.97)
    if owners.get(column.name, 0.0) > 0.5:  # noqa: PLR2004
        return Role(column=column.name, why=f"the ids of the table of {side}s", sure=0.9)
    return Role(column=column.name, why=f"{counted} that come again", sure=0.4)


def guess_time(columns: Sequence[Column]) -> Role | None:
    """Guess the column of times: by its values, and among several by its name."""
    found = []
    for column in columns:
        is_named = fits(column.name, TIME)
        if column.missing_share > 0.5:  # noqa: PLR2004
            continue
        if column.dates is not None:
            found.append((is_named, column.n_distinct, _dates(column)))
        elif column.unit is not None and (is_named or column.n_distinct > MOST_GRADES):
            settings = {"timestamp_format": column.unit}
            why = f"numbers that are times since 1970, in {column.unit}"
            sure = 0.97 if is_named else 0.8
            role = Role(column=column.name, why=why, sure=sure, settings=settings)
            found.append((is_named, column.n_distinct, role))
        elif is_named and column.numbers is not None and column.n_distinct > MOST_GRADES:
            role = Role(
                column=column.name,
                why="numbers, by its name: their order is used",
                sure=0.6,
                is_since_1970=False,
            )
            found.append((is_named, 0, role))
    return max(found, key=lambda one: one[:2])[2] if found else None


def guess_available(columns: Sequence[Column], time: Role) -> Role | None:
    """Guess the column with the time from which an item could be chosen: times with such a name.

    None unless `time`, that of the interactions, is in a unit that they can be compared in.
    """
    for column in columns:
        if not fits(column.name, AVAILABLE) or not time.is_since_1970:
            continue
        if column.dates is not None:
            role = _dates(column)
            form = role.settings.get("timestamp_format")
            settings = {} if form is None else {"available_format": form}
            return dataclasses.replace(role, settings=settings)
        if column.unit is not None:
            why = f"numbers that are times since 1970, in {column.unit}"
            settings = {"available_format": column.unit}
            return Role(column=column.name, why=why, sure=0.8, settings=settings)
    return None


def _dates(column: Column) -> Role:
    """A column of dates; where the day or the month may come first, that is asked."""
    dates = column.dates
    if dates is None or dates.day_or_month is None:
        order = "" if dates is None or dates.order == "unknown" else f", with the {dates.order}"
        example = column.texts[0] if column.texts else ""
        return Role(column=column.name, why=f"dates such as {example}{order}", sure=0.97)
    day, month = dates.day_or_month
    return Role(
        column=column.name,
        why=f"dates such as {column.texts[0]}: day or month first?",
        sure=0.4,
        settings={"timestamp_format": month},
        comments=(
            f"ASK: does the day or the month come first? Nothing tells; with the day: {day!r}",
        ),
    )


def guess_rating(columns: Sequence[Column]) -> Role | None:
    """Guess the column of ratings, and from which on they are positive."""
    found = []
    for column in columns:
        grades = _grades(column)
        if grades is None:
            continue
        is_label = fits(column.name, LABEL) and grades.tolist() == [0.0, 1.0]
        is_named = fits(column.name, RATING) or is_label
        is_graded = 3 <= len(grades) <= MOST_GRADES and grades.max() <= 10  # noqa: PLR2004
        if is_named or (not column.name.strip("column_0123456789") and is_graded):
            found.append((is_named, -column.place, column, grades))
    if not found:
        return None
    is_named, _, column, grades = max(found, key=lambda one: one[:2])
    low, high = float(grades.min()), float(grades.max())
    positive = float(grades[grades >= low + UPPER * (high - low)].min())
    numbers = parse_numbers(column.values).values.dropna().to_numpy()
    share = float((numbers >= positive).mean())
    comments = [
        f"{share:.0%} of the ratings are positive; lower ones count as seen (docs/events.md)"
    ]
    zeros = float((numbers == 0).mean())
    if low == 0.0 and zeros > 0.1 and len(grades) > 2:  # noqa: PLR2004
        comments.append(
            f"{zeros:.0%} of the ratings are 0, which often means that there is none; without "
            "rating and positive_rating all rows are positives"
        )
    return Role(
        column=column.name,
        why=f"{len(grades)} different numbers from {low:g} to {high:g}",
        sure=0.95 if is_named else 0.7,
        settings={"positive_rating": positive},
        comments=tuple(comments),
    )


def _grades(column: Column) -> np.ndarray | None:
    """The different values of a column of ratings; None if it is none."""
    if {text.lower() for text in column.texts} == {"true", "false"}:
        return np.array([0.0, 1.0])
    if column.numbers is None or not len(column.numbers):
        return None
    grades = np.unique(column.numbers)
    is_scale = 2 <= len(grades) <= MOST_GRADES and grades[0] >= 0 and grades[-1] <= HIGHEST  # noqa: PLR2004
    return grades if is_scale else None


def guess_event(columns: Sequence[Column]) -> Role | None:
    """Guess the column of behaviours, and what each of them means."""
    known = TARGETS[0] | TARGETS[1] | NEGATIVES | LOOKS
    for column in columns:
        if column.numbers is not None or column.has_lists or column.n_distinct > MOST_EVENTS:
            continue
        counts = pd.Series(column.values[~column.missing].astype(str)).value_counts()
        named = [name for name in counts.index if _means(name, known)]
        if len(named) < 2 or (len(named) < len(counts) / 2 and not fits(column.name, EVENT)):  # noqa: PLR2004
            continue
        return Role(
            column=column.name,
            why=", ".join(f"{name} {count:,}" for name, count in counts.items()),
            sure=0.85 if fits(column.name, EVENT) else 0.6,
            settings={"behaviours": _behaviours(list(counts.index))},
        )
    return None


def _means(name: str, hints: frozenset[str]) -> bool:
    """Whether an event's name has one of these words."""
    found = words(name)
    return bool(hints & {*found, "".join(found)})


def _behaviours(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """What each event means: the strongest are targets, looks do not count as seen."""
    strongest = [[name for name in names if _means(name, hints)] for hints in TARGETS]
    others = [name for name in names if not _means(name, NEGATIVES)]
    targets = next(filter(None, [*strongest, others]))
    found: dict[str, dict[str, object]] = {}
    for name in names:
        if name in targets:
            found[name] = {"role": "target"}
        elif _means(name, NEGATIVES):
            found[name] = {"role": "negative"}
        else:
            found[name] = {"seen": False} if _means(name, LOOKS | TARGETS[1]) else {}
    return found
