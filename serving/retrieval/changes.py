"""Change: users or items to put in or take out of a loaded version; checked, and then applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.retrieval.fresh.past import put_past, read_past
from serving.retrieval.parts import Parts
from serving.search.index import Vectors
from towers.directions import DIRECTIONS
from towers.errors import QueryError
from towers.features.past_items import PastItems
from towers.features.schema import Side


@dataclass(frozen=True, eq=False)
class Change:
    """Users or items to remove, and others to add or replace. It fits the version."""

    side: Side
    records: Sequence[Mapping[str, Any]]
    """Rows of the side's table by its columns, with a history if given; ids differ."""
    vectors: Vectors
    """The vectors of `records`, [n, 1 + d] float32, all finite."""
    removed: Sequence[int | str]
    """The ids to remove, before anything is added."""
    past: Mapping[str, PastItems] = field(default_factory=dict)
    """What the records bring to each history; nothing for users."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """What one request asks to change on a side."""

    upsert: Sequence[Mapping[str, Any]] = ()
    """Each as a row of the side's table. Of several with one id, the last counts."""
    delete: Sequence[int | str] = ()


def check_changes(parts: Parts, side: Side, several: Sequence[Asked]) -> list[Change]:
    """Check that each of some changes fits the version, and encode the records of all together.

    Raises:
        QueryError: one of them does not fit; see `Retriever.change`.
    """
    catalogue, tower = parts.catalogue(side), parts.tower(side)
    columns = _columns(parts, side)
    read = [_read_records(parts, side, asked.upsert, columns=columns) for asked in several]
    records = [record for of_one in read for record in of_one]
    features = {
        name: [record.get(column) for record in records] for name, column in columns.items()
    }
    packed = tower.pack(features, size=len(records))
    vectors = tower(packed) if records else np.empty((0, 0), np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise QueryError(
            f"{catalogue.id_column} {records[int(np.argmin(finite))][catalogue.id_column]!r}: "
            "expected a finite vector, received NaN or infinity; check the values of the numeric "
            "features"
        )
    changes, start = [], 0
    for asked, own in zip(several, read, strict=True):
        catalogue.rows(asked.delete)
        here = slice(start, start + len(own))
        start = here.stop
        past: dict[str, PastItems] = {}
        if side == "item" and own:
            ids = np.array([one[catalogue.id_column] for one in own], dtype=catalogue.id_dtype)
            past = read_past(parts, ids, {name: values[here] for name, values in packed.items()})
        changes.append(Change(side, own, vectors[here], list(asked.delete), past))
    return changes


def _columns(parts: Parts, side: Side) -> dict[str, str]:
    """The column in which records have each feature of a side, by the feature's name."""
    columns = {name: name for name in parts.tower(side).inputs} | parts.schema.columns(side)
    if side == "user":
        for history, column in parts.history_columns.items():
            if column is None:
                columns.pop(history, None)
        for feature in parts.schema.context_features:
            columns.pop(feature.name, None)  # of a query, not of a user
    return columns


def _read_records(
    parts: Parts,
    side: Side,
    upsert: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str],
) -> list[Mapping[str, Any]]:
    """Read the records of one request as the table has them; of each id, the last one."""
    catalogue, tower = parts.catalogue(side), parts.tower(side)
    names = {**columns, **{column: column for column in catalogue.columns}}
    inputs = {columns[name]: input for name, input in tower.inputs.items() if name in columns}
    given = [{names.get(key, key): value for key, value in one.items()} for one in upsert]
    read = [catalogue.read_record(record, inputs=inputs) for record in given]
    return list({record[catalogue.id_column]: record for record in read}.values())


def apply_change(parts: Parts, change: Change) -> None:
    """Make a change, in the catalogue and in the indexes of both directions to that side."""
    catalogue = parts.catalogue(change.side)
    directions = [chosen for chosen in DIRECTIONS.values() if chosen.target == change.side]
    gone = catalogue.remove(change.removed)
    for direction in directions:
        parts.index(direction.name).remove(gone)
    if change.records:
        rows = catalogue.put(change.records, change.vectors)
        if change.past:
            put_past(parts, change.past)
        for direction in directions:
            parts.index(direction.name).put(rows, direction.project(change.vectors))
