"""Check a table of users or items: one row an id, and the columns that features read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.columns.ids import IdKind, parse_ids
from pipelines.data.columns.parsed import is_missing
from pipelines.data.columns.tidy import (
    tidy_bags,
    tidy_column,
    tidy_numbers,
    tidy_shown,
    tidy_vectors,
)
from pipelines.data.columns.times import ParsedTimes, TimeReading
from pipelines.data.faults.rejects import Faults, Rejects
from pipelines.data.faults.unread import report_merged, report_unread
from pipelines.data.sources.source import Rows, Source
from towers.errors import ConfigError
from towers.features.kinds import Categorical, Cross, History, MultiValued, Numeric, Trend, Vector
from towers.features.lists import vector_length
from towers.features.reading import Mask
from towers.features.schema import Schema, Side

ColumnFeature = Categorical | MultiValued | Numeric | Vector
"""A feature that reads a column of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedEntities:
    """The good rows of a table of users or items, and its faulty rows."""

    rows: pd.DataFrame
    """One row an id: the id, then the other columns, each of the type of its values."""
    faults: Faults
    notes: tuple[str, ...]
    """What the report is to say about values that are not taken as they stand."""
    available: NDArray[np.float64] | None = None
    """The time from which each item could be chosen, NaN where none is given; None without."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Where the table of items says from when on they could be chosen."""

    column: str
    format: str | None
    """How its times are written, where the configuration says so."""
    in_seconds: bool
    """Whether the times of the interactions are known to be seconds since 1970."""

    def read(self, rows: Rows) -> ParsedTimes:
        """Read the times of some items, in the unit of those of the interactions.

        Raises:
            ConfigError: that unit and theirs cannot be compared.
        """
        column = rows.column(self.column)
        reading = TimeReading.of([column], format=self.format)
        in_seconds = reading.are_dates or reading.format is not None
        if in_seconds != self.in_seconds and not is_missing(column).all():
            kinds = ("numbers whose unit is not said", "dates or numbers of a known unit")
            remedy = "available_format" if self.in_seconds else "data.interactions.timestamp_format"
            raise ConfigError(
                f"data.items.available_from: expected times like those of the interactions, which "
                f"are {kinds[self.in_seconds]}, received {kinds[in_seconds]} in {rows.where}, "
                f'{self.column!r}; set {remedy} ("s" for seconds since 1970)'
            )
        return reading.parse(column)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadColumn:
    """A column that a feature reads."""

    name: str
    values: pd.Series
    faulty: Mask
    """The values that cannot be read."""
    why: str
    """What such a value is."""
    rejects: bool = False
    """Whether it is a fault of its row; else it is missing."""


def require_columns(source: Source | None, *, schema: Schema, side: Side) -> None:
    """Refuse a table without the columns that features read, and features without a table.

    Raises:
        ConfigError: with the missing columns.
    """
    columns = read_columns(schema, side)
    trend = schema.trend if side == "item" else None
    if source is not None:
        source.require([schema.id_column(side), *columns])
        if trend is not None and trend.column in source.columns:
            raise ConfigError(
                f"item.features: expected a column for the trend that the items do not have, "
                f"received {trend.column!r}; give the trend another `column`"
            )
    elif columns:
        raise ConfigError(
            f"{side}.features: expected a table of {side}s with the column(s) {columns}, received "
            f"no such table; give data.{side}s, or remove these features"
        )


def read_columns(schema: Schema, side: Side) -> list[str]:
    """List the columns of a side that features read, but for the ids."""
    return [column for feature in _column_features(schema, side) for column in _names(feature)]


def check_entities(
    source: Source,
    *,
    schema: Schema,
    side: Side,
    id_kind: IdKind,
    availability: Availability | None = None,
) -> CheckedEntities:
    """Read a table of users or items, and collect its faulty rows.

    Only its id rejects a row, and a vector that is none or of another length than the others: any
    other value that a feature cannot read is a missing value, and noted.
    Every column keeps its values, in the type that holds them: `Int64` for integers, so that
    missing values leave them as they are. Those that features read are

    | feature | column |
    |---|---|
    | categorical | as all columns: what a token of it is, is read when it is used |
    | multi-valued, its weights | lists of integers or text, lists of floats; missing is [] |
    | numeric | `Int64`, or float64; missing is NA, or NaN |
    | vector | arrays of float32; missing is null |

    A time from which an item could be chosen is none where it cannot be read, and noted.
    """
    id_column = schema.id_column(side)
    rows = source.read(0, source.n_rows)
    rejects = Rejects(source.n_rows)
    ids = parse_ids(rows.column(id_column), kind=id_kind)
    rejects.add(ids.missing, f"null {id_column}", columns=[id_column])
    rejects.add(ids.faulty, f"unparsable {id_column}", columns=[id_column])
    good = rejects.good
    repeated = np.zeros(len(good), dtype=bool)
    repeated[good] = ids.values[good].duplicated()
    rejects.add(repeated, f"duplicate {id_column}", columns=[id_column])
    columns = _read_columns(rows, schema=schema, side=side)
    for column in columns.values():
        if column.rejects:
            rejects.add(column.faulty, column.why, columns=[column.name])
    values = {id_column: ids.values} | {name: column.values for name, column in columns.items()}
    notes = [
        line
        for column in columns.values()
        if not column.rejects
        for line in report_unread(
            rows, column.name, column.faulty, why=column.why, kept=rejects.good
        )
    ]
    for feature in _column_features(schema, side):
        if isinstance(feature, Categorical):
            notes += report_merged(rows, feature.column)
    times = None if availability is None else availability.read(rows)
    if availability is not None and times is not None:
        unread, kept = times.faulty, rejects.good
        notes += report_unread(rows, availability.column, unread, why="no time", kept=kept)
    return CheckedEntities(
        rows=pd.DataFrame(values)[rejects.good].reset_index(drop=True),
        faults=Faults.of(source, rejects),
        notes=tuple(notes),
        available=None if times is None else times.values.to_numpy(np.float64)[rejects.good],
    )


def entities_from_ids(ids: pd.Series, *, id_column: str) -> pd.DataFrame:
    """Make the table of a side that has none: one row an id, in order of first occurrence."""
    return pd.DataFrame({id_column: ids.drop_duplicates().reset_index(drop=True)})


def _column_features(schema: Schema, side: Side) -> list[ColumnFeature]:
    """List the features that read a column of their own."""
    id_column = schema.id_column(side)
    return [
        feature
        for feature in schema.features(side)
        if not isinstance(feature, (Cross, History, Trend)) and feature.column != id_column
    ]


def _names(feature: ColumnFeature) -> list[str]:
    """List the columns that a feature reads."""
    weights = feature.weights if isinstance(feature, MultiValued) else None
    return [feature.column] if weights is None else [feature.column, weights]


def _read_columns(rows: Rows, *, schema: Schema, side: Side) -> dict[str, _ReadColumn]:
    """Read all columns but the id, in the order of the table."""
    read = {
        column.name: column
        for feature in _column_features(schema, side)
        for column in _read_feature(feature, rows)
    }
    nothing = np.zeros(len(rows.frame), dtype=np.bool_)
    return {
        name: read.get(name)
        or _ReadColumn(
            name=name,
            values=tidy_shown(rows.column(name), typed=rows.typed),
            faulty=nothing,
            why="",
        )
        for name in rows.frame.columns
        if name != schema.id_column(side)
    }


def _read_feature(feature: ColumnFeature, rows: Rows) -> list[_ReadColumn]:
    """Read the column of a feature, and of its weights; what cannot be read is missing."""
    name = feature.column
    column = rows.column(name)
    if isinstance(feature, MultiValued):
        return _read_lists(feature, rows)
    if isinstance(feature, Vector):
        return [_read_vectors(feature, rows)]
    if isinstance(feature, Numeric):
        parsed, why = tidy_numbers(column, form=feature.form), "no finite number of 32 bits"
    else:
        parsed, why = tidy_column(column, typed=rows.typed), "no single value"
    values = parsed.values.mask(parsed.faulty, None) if parsed.faulty.any() else parsed.values
    return [_ReadColumn(name=name, values=values, faulty=parsed.faulty, why=why)]


def _read_vectors(feature: Vector, rows: Rows) -> _ReadColumn:
    """Read vectors of the length that the feature says, or that most of them have."""
    column = rows.column(feature.column)
    size = feature.length or vector_length(column)
    parsed = tidy_vectors(column, size=size)
    return _ReadColumn(
        name=feature.column,
        values=parsed.values,
        faulty=parsed.faulty,
        why=f"{feature.column} is no list of {size} numbers",
        rejects=True,
    )


def _read_lists(feature: MultiValued, rows: Rows) -> list[_ReadColumn]:
    """Read lists, and their weights; a list that cannot be read is empty, and a weight is 1."""
    name = feature.column
    weights = None if feature.weights is None else rows.column(feature.weights)
    tokens, values = tidy_bags(rows.column(name), weights, separator=feature.separator)
    columns = [(name, tokens, "no list of values")]
    if feature.weights is not None and values is not None:
        why = f"no list of finite numbers, one for each of {name}"
        columns.append((feature.weights, values, why))
    return [
        _ReadColumn(
            name=column,
            values=pd.Series(
                [
                    [] if is_faulty else cell
                    for cell, is_faulty in zip(parsed.values, tokens.faulty, strict=True)
                ],
                dtype=object,
            ),
            faulty=parsed.faulty,
            why=why,
        )
        for column, parsed, why in columns
    ]
