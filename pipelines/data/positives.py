"""Check a table of interactions, and take the positives from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import InteractionsTable
from pipelines.data.columns import Parsed, parse_numbers, parse_times
from pipelines.data.ids import IdKind, parse_ids
from pipelines.data.rejects import Reason, Rejects
from pipelines.data.tables import SourceTable
from towers.schema import Side

PAIR = ("user_id", "item_id")


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedInteractions:
    """The good rows of a table of interactions, in the order of the file, and its faulty rows."""

    rows: pd.DataFrame
    """user_id and item_id (int64, or str), timestamp (float64) if there is one, weight (float32)
    and is_positive."""
    rejects: Rejects


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedInteractions:
    """A table of interactions, and the rows that are faulty by themselves."""

    rows: pd.DataFrame
    """All rows, with the columns of `CheckedInteractions`; and user_row and item_row, the place
    among the known ids of a side that has some, -1 where there is none."""
    rejects: Rejects

    @property
    def key(self) -> list[str]:
        """The columns in which no two good rows may be the same."""
        return [column for column in self.rows if column in {*PAIR, "timestamp"}]


@dataclass(frozen=True, kw_only=True)
class PositiveCounts:
    """What became of the rows of a table that are without a fault."""

    kept: int = 0
    not_positive: int = 0
    """How many rows have a rating below the threshold."""
    merged: int = 0
    """How many later positives of a user with the same item were left out."""
    in_training: int = 0
    """How many positives were left out because they are among the training interactions."""

    def __add__(self, other: PositiveCounts) -> PositiveCounts:
        """Count two tables as one."""
        return PositiveCounts(
            kept=self.kept + other.kept,
            not_positive=self.not_positive + other.not_positive,
            merged=self.merged + other.merged,
            in_training=self.in_training + other.in_training,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Positives:
    """The positives of a table, and what was left out."""

    rows: pd.DataFrame
    """One row a user and item, in order of time if there are timestamps."""
    counts: PositiveCounts


def table_columns(table: InteractionsTable) -> list[str]:
    """List the columns that a table of interactions must have."""
    named = (table.user, table.item, table.timestamp, table.rating, table.weight)
    return [column for column in named if column is not None]


def check_interactions(
    source: SourceTable,
    table: InteractionsTable,
    *,
    id_kinds: Mapping[Side, IdKind],
    known_ids: Mapping[Side, pd.Index],
) -> CheckedInteractions:
    """Parse a table of interactions, and collect its faulty rows.

    A side that has a table has its ids in `known_ids`; an interaction with another id is a fault.
    """
    parsed = parse_interactions(source, table, id_kinds=id_kinds, known_ids=known_ids)
    rejects = parsed.rejects
    good = rejects.good
    repeated = np.zeros(len(good), dtype=bool)
    repeated[good] = parsed.rows[good].duplicated(parsed.key)
    reason, shown = duplicate(table)
    rejects.add(repeated, reason, columns=shown)
    rows = parsed.rows.drop(columns=[f"{side}_row" for side in known_ids])
    return CheckedInteractions(rows=rows[rejects.good].reset_index(drop=True), rejects=rejects)


def duplicate(table: InteractionsTable) -> Reason:
    """The fault of a row that repeats an earlier one."""
    shown = (table.user, table.item, table.timestamp)
    return "duplicate interaction", tuple(name for name in shown if name is not None)


def parse_interactions(
    source: SourceTable,
    table: InteractionsTable,
    *,
    id_kinds: Mapping[Side, IdKind],
    known_ids: Mapping[Side, pd.Index],
    as_dates: bool | None = None,
) -> ParsedInteractions:
    """Parse a table of interactions, and collect the rows that are faulty by themselves.

    `as_dates` says whether times are dates, where `source` is only a part of a table.
    """
    rejects = Rejects(source)
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
    if table.timestamp is not None:
        times = parse_times(source.column(table.timestamp), as_dates=as_dates)
        _reject(times, table.timestamp, rejects)
        columns["timestamp"] = times.values
    is_positive = pd.Series(_rated(source, table, rejects))
    columns["weight"] = _weights(source, table, rejects)
    rows = pd.DataFrame(columns | {"is_positive": is_positive}, copy=False)
    return ParsedInteractions(rows=rows, rejects=rejects)


def take_positives(
    rows: pd.DataFrame, *, seen: pd.DataFrame | None = None, pair: Sequence[str] = PAIR
) -> Positives:
    """Keep the positives among checked interactions, the earliest of each user and item.

    Sorts by timestamp if there is one; rows of one time keep their order. Those whose user and
    item, the columns `pair`, occur in `seen` are left out.
    """
    key = list(pair)
    positives = rows[rows["is_positive"]].drop(columns="is_positive")
    if "timestamp" in positives:
        positives = positives.sort_values("timestamp", kind="stable")
    earliest = positives.drop_duplicates(key, ignore_index=True)
    unseen = earliest
    if seen is not None:
        match = earliest[key].merge(seen[key], on=key, how="left", indicator="match")["match"]
        unseen = earliest[(match == "left_only").to_numpy()].reset_index(drop=True)
    return Positives(
        rows=unseen,
        counts=PositiveCounts(
            kept=len(unseen),
            not_positive=len(rows) - len(positives),
            merged=len(positives) - len(earliest),
            in_training=len(earliest) - len(unseen),
        ),
    )


def _reject(parsed: Parsed, name: str, rejects: Rejects) -> None:
    """Collect the rows without a value, and those whose value cannot be parsed."""
    rejects.add(parsed.missing, f"null {name}", columns=[name])
    rejects.add(parsed.faulty, f"unparsable {name}", columns=[name])


def _rated(source: SourceTable, table: InteractionsTable, rejects: Rejects) -> NDArray[np.bool_]:
    """Say which rows are positives by their rating."""
    if table.rating is None or table.positive_rating is None:
        return np.ones(len(source.frame), dtype=np.bool_)
    ratings = parse_numbers(source.column(table.rating))
    _reject(ratings, table.rating, rejects)
    return ratings.values.to_numpy() >= table.positive_rating


def _weights(source: SourceTable, table: InteractionsTable, rejects: Rejects) -> pd.Series:
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
