"""Check a table of interactions, and take the positives from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.columns import Parsed, parse_numbers, parse_times
from pipelines.config import InteractionsTable
from pipelines.ids import IdKind, parse_ids
from pipelines.rejects import Rejects
from pipelines.tables import SourceTable
from towers.schema import Side

PAIR = ["user_id", "item_id"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedInteractions:
    """The good rows of a table of interactions, in the order of the file, and its faulty rows."""

    rows: pd.DataFrame
    """user_id and item_id (int64, or str), timestamp (float64) if there is one, weight (float32)
    and is_positive."""
    rejects: Rejects


@dataclass(frozen=True, kw_only=True, eq=False)
class Positives:
    """The positives of a table, and what was left out."""

    rows: pd.DataFrame
    """One row a user_id and item_id, in order of time if there are timestamps."""
    not_positive: int
    """How many rows have a rating below the threshold."""
    merged: int
    """How many later positives of a user with the same item were left out."""
    in_training: int
    """How many positives were left out because they are among the training interactions."""


def table_columns(table: InteractionsTable) -> list[str]:
    """List the columns that a table of interactions must have."""
    named = (table.user, table.item, table.timestamp, table.rating, table.weight)
    return [column for column in named if column is not None]


def check_interactions(
    source: SourceTable,
    table: InteractionsTable,
    *,
    id_kinds: Mapping[Side, IdKind],
    known_ids: Mapping[Side, pd.Series],
) -> CheckedInteractions:
    """Parse a table of interactions, and collect its faulty rows.

    A side that has a table has its ids in `known_ids`; an interaction with another id is a fault.
    """
    rejects = Rejects(source)
    columns: dict[str, pd.Series] = {}
    sides: tuple[tuple[Side, str], ...] = (("user", table.user), ("item", table.item))
    for side, name in sides:
        ids = parse_ids(source.frame[name], kind=id_kinds[side])
        _reject(ids, name, rejects)
        columns[f"{side}_id"] = ids.values
    for side, name in sides:
        if side in known_ids:
            is_unknown = ~columns[f"{side}_id"].isin(known_ids[side]).to_numpy()
            rejects.add(is_unknown, f"{name} not in the {side}s table", columns=[name])
    if table.timestamp is not None:
        times = parse_times(source.frame[table.timestamp])
        _reject(times, table.timestamp, rejects)
        columns["timestamp"] = times.values
    is_positive = _rated(source, table, rejects)
    columns["weight"] = _weights(source, table, rejects)
    rows = pd.DataFrame(columns).assign(is_positive=is_positive)
    good = rejects.good
    repeated = np.zeros(len(rows), dtype=bool)
    repeated[good] = rows[good].duplicated([c for c in rows if c in {*PAIR, "timestamp"}])
    shown = [name for name in (table.user, table.item, table.timestamp) if name is not None]
    rejects.add(repeated, "duplicate interaction", columns=shown)
    return CheckedInteractions(rows=rows[rejects.good].reset_index(drop=True), rejects=rejects)


def take_positives(rows: pd.DataFrame, *, seen: pd.DataFrame | None = None) -> Positives:
    """Keep the positives among checked interactions, the earliest of each user and item.

    Sorts by timestamp if there is one; rows of one time keep their order. Those whose user and
    item occur in `seen` are left out.
    """
    positives = rows[rows["is_positive"]].drop(columns="is_positive")
    if "timestamp" in positives:
        positives = positives.sort_values("timestamp", kind="stable")
    earliest = positives.drop_duplicates(PAIR, ignore_index=True)
    unseen = earliest
    if seen is not None:
        match = earliest[PAIR].merge(seen[PAIR], on=PAIR, how="left", indicator="match")["match"]
        unseen = earliest[(match == "left_only").to_numpy()].reset_index(drop=True)
    return Positives(
        rows=unseen,
        not_positive=len(rows) - len(positives),
        merged=len(positives) - len(earliest),
        in_training=len(earliest) - len(unseen),
    )


def _reject(parsed: Parsed, name: str, rejects: Rejects) -> None:
    """Collect the rows without a value, and those whose value cannot be parsed."""
    rejects.add(parsed.missing, f"null {name}", columns=[name])
    rejects.add(parsed.faulty, f"unparsable {name}", columns=[name])


def _rated(source: SourceTable, table: InteractionsTable, rejects: Rejects) -> NDArray[np.bool_]:
    """Say which rows are positives by their rating."""
    if table.rating is None or table.positive_rating is None:
        return np.ones(len(source.frame), dtype=np.bool_)
    ratings = parse_numbers(source.frame[table.rating])
    _reject(ratings, table.rating, rejects)
    return ratings.values.to_numpy() >= table.positive_rating


def _weights(source: SourceTable, table: InteractionsTable, rejects: Rejects) -> pd.Series:
    """Give each row's weight; 1 if the table has none."""
    if table.weight is None:
        return pd.Series(np.float32(1.0), index=source.frame.index)
    weights = parse_numbers(source.frame[table.weight])
    _reject(weights, table.weight, rejects)
    with np.errstate(over="ignore"):
        values = weights.values.astype("float32")
    positive = (values > 0.0) & np.isfinite(values)
    rejects.add(
        ~positive.to_numpy(), f"{table.weight} not a positive number", columns=[table.weight]
    )
    return values
