"""Parse a chunk of interactions, and find the rows that are faulty by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.behaviours import DISLIKED, LIKED, Behaviours, weights_of, with_role
from pipelines.data.columns.ids import IdKind, parse_ids
from pipelines.data.columns.parsed import Parsed, parse_numbers
from pipelines.data.columns.times import TimeReading
from pipelines.data.faults.rejects import Reason, Rejects
from pipelines.data.sources.source import Rows
from pipelines.table_config import InteractionsTable
from towers.features.kinds import Categorical, Numeric
from towers.features.reading import read_numbers, read_tokens
from towers.features.schema import Side
from towers.features.values import MISSING_STRING


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedInteractions:
    """A chunk of interactions, and its faulty rows."""

    rows: pd.DataFrame
    """All rows: user_id and item_id (int64, or str), timestamp (float64) if there is one, weight
    (float32), behaviour (int8, its code, -1 for one of another name) and is_target; and user_row
    and item_row, the place among the known ids of a side that has some, -1 where there is none."""
    rejects: Rejects
    others: pd.Series
    """How many rows have each name that is not that of a behaviour."""


def table_columns(table: InteractionsTable, context: Sequence[Categorical | Numeric]) -> list[str]:
    """List the columns that a table of interactions must have."""
    named = (table.user, table.item, table.timestamp, table.rating, table.event, table.weight)
    return [column for column in named if column is not None] + [one.column for one in context]


def read_context(source: Rows, context: Sequence[Categorical | Numeric]) -> dict[str, pd.Series]:
    """Read the columns of the context by their place: text, or numbers; missing ones are null."""
    columns: dict[str, pd.Series] = {}
    for place, feature in enumerate(context):
        values = source.column(feature.column)
        if isinstance(feature, Numeric):
            columns[context_column(place)] = pd.Series(
                read_numbers(values, form=feature.form).values
            )
        else:
            texts = pd.Series(read_tokens(values, "text").values, dtype=object)
            columns[context_column(place)] = texts.where(texts != MISSING_STRING, None)
    return columns


def context_column(place: int) -> str:
    """What a column of the context is called in the files of steps."""
    return f"context_{place}"


def duplicate(table: InteractionsTable) -> Reason:
    """The reason for which a row that repeats an earlier one is rejected."""
    shown = (table.user, table.item, table.timestamp, table.event)
    return "duplicate interaction", tuple(name for name in shown if name is not None)


def parse_interactions(
    source: Rows,
    table: InteractionsTable,
    *,
    behaviours: Behaviours,
    id_kinds: Mapping[Side, IdKind],
    known_ids: Mapping[Side, pd.Index],
    times: TimeReading | None,
    context: Sequence[Categorical | Numeric] = (),
) -> ParsedInteractions:
    """Parse interactions, and collect the rows that are faulty by themselves.

    Args:
        source: the rows.
        table: what its columns mean.
        behaviours: what users do, by name.
        id_kinds: whether ids are integers or text.
        known_ids: the ids of a side that has a table; an interaction with another is a fault.
        times: how times are read, if there are some.
        context: the features of the moment that the table has.
    """
    rejects = Rejects(len(source.frame))
    columns: dict[str, pd.Series] = {}
    sides: tuple[tuple[Side, str], ...] = (("user", table.user), ("item", table.item))
    for side, name in sides:
        ids = parse_ids(source.column(name), kind=id_kinds[side])
        _reject(ids, name, rejects)
        columns[f"{side}_id"] = ids.values
    for side, name in sides:
        if side in known_ids:
            known = known_ids[side].get_indexer(pd.Index(columns[f"{side}_id"]))
            rejects.add(known < 0, f"{name} not in the {side}s table", columns=[name])
            columns[f"{side}_row"] = pd.Series(known)
    values = parse_values(source, table, behaviours=behaviours, times=times, rejects=rejects)
    rows = pd.DataFrame(columns | values | read_context(source, context), copy=False)
    others = pd.Series(dtype=np.int64)
    unnamed = rejects.good & (rows["behaviour"].to_numpy() < 0)
    if table.event is not None and unnamed.any():
        others = source.column(table.event)[unnamed].astype(str).value_counts()
    return ParsedInteractions(rows=rows, rejects=rejects, others=others)


def parse_values(
    source: Rows,
    table: InteractionsTable,
    *,
    behaviours: Behaviours,
    times: TimeReading | None,
    rejects: Rejects,
) -> dict[str, pd.Series]:
    """Parse the columns of interactions other than ids, and collect the faulty rows."""
    columns: dict[str, pd.Series] = {}
    if table.timestamp is not None and times is not None:
        columns["timestamp"] = _times(source, table.timestamp, times, rejects)
    codes = _codes(source, table, behaviours, rejects)
    factors = np.append(weights_of(behaviours), np.float32(1.0))
    weights = _weights(source, table, rejects) * factors[codes]
    is_target = np.append(with_role(behaviours, "target"), False)[codes]
    return columns | {
        "weight": weights,
        "behaviour": pd.Series(codes),
        "is_target": pd.Series(is_target),
    }


def _times(source: Rows, name: str, times: TimeReading, rejects: Rejects) -> pd.Series:
    """Give each row's time; a fault names the setting that may help."""
    parsed = times.parse(source.column(name))
    reasons = (
        (parsed.missing, f"null {name}"),
        (parsed.ambiguous, f"{name} with the day or the month first (set timestamp_format)"),
        (parsed.faulty, f"unparsable {name} (see timestamp_format)"),
    )
    for faulty, reason in reasons:
        rejects.add(faulty, reason, columns=[name])
    return parsed.values


def _reject(parsed: Parsed, name: str, rejects: Rejects) -> None:
    """Collect the rows without a value, and those whose value cannot be parsed."""
    rejects.add(parsed.missing, f"null {name}", columns=[name])
    rejects.add(parsed.faulty, f"unparsable {name}", columns=[name])


def _codes(
    source: Rows, table: InteractionsTable, behaviours: Behaviours, rejects: Rejects
) -> NDArray[np.int8]:
    """Say what each row's behaviour is, -1 for one that has no name; without a column, a target.

    A rating comes before the event of its row.
    """
    names = pd.Index(list(behaviours))
    rated = _rated(source, table, names)
    has_rating = np.zeros(len(source.frame), dtype=bool) if rated is None else ~rated[0].missing
    if table.event is not None:
        events = read_tokens(source.column(table.event), "text")
        nameless = events.missing & ~has_rating
        rejects.add(nameless, f"null {table.event}", columns=[table.event])
        codes = names.get_indexer(pd.Index(events.values)).astype(np.int8)
    elif table.behaviour is not None:
        codes = np.full(len(source.frame), names.get_loc(table.behaviour), dtype=np.int8)
    else:
        target = int(np.argmax(with_role(behaviours, "target")))
        codes = np.full(len(source.frame), target, dtype=np.int8)
    if rated is None or table.rating is None:
        return codes
    ratings, of_ratings = rated
    if table.event is None and table.behaviour is None:
        rejects.add(ratings.missing, f"null {table.rating}", columns=[table.rating])
    rejects.add(ratings.faulty, f"unparsable {table.rating}", columns=[table.rating])
    return np.where(has_rating, of_ratings, codes)


def _rated(
    source: Rows, table: InteractionsTable, names: pd.Index
) -> tuple[Parsed, NDArray[np.int8]] | None:
    """The ratings, and whether each is one of what is liked or disliked; None without ratings."""
    if table.rating is None or table.positive_rating is None or LIKED not in names:
        return None
    ratings = parse_numbers(source.column(table.rating))
    liked, disliked = names.get_indexer(pd.Index([LIKED, DISLIKED]))
    is_liked = ratings.values.to_numpy() >= table.positive_rating
    return ratings, np.where(is_liked, liked, disliked).astype(np.int8)


def _weights(source: Rows, table: InteractionsTable, rejects: Rejects) -> pd.Series:
    """Give each row's weight; 1 if the table has none."""
    if table.weight is None:
        return pd.Series(np.float32(1.0), index=source.frame.index)
    weights = parse_numbers(source.column(table.weight))
    _reject(weights, table.weight, rejects)
    with np.errstate(over="ignore"):
        values = weights.values.astype("float32")
    positive = (values > 0.0) & np.isfinite(values)
    rejects.add(
        ~positive.to_numpy(), f"{table.weight} not a positive number", columns=[table.weight]
    )
    return values
