"""Check a table of users or items: one row an id, and the columns that features read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.data.columns import tidy_bags, tidy_column, tidy_numbers, tidy_shown
from pipelines.data.ids import IdKind, parse_ids
from pipelines.data.rejects import Faults, Rejects
from pipelines.data.sources.source import Rows, Source
from towers.errors import ConfigError
from towers.schema import Feature, History, MultiValued, Numeric, Schema, Side


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedEntities:
    """The good rows of a table of users or items, and its faulty rows."""

    rows: pd.DataFrame
    """One row an id: the id, then the other columns, each of the type of its values."""
    faults: Faults


def require_columns(source: Source | None, *, schema: Schema, side: Side) -> None:
    """Refuse a table without the columns that features read, and features without a table.

    Raises:
        ConfigError: with the missing columns.
    """
    columns = [column for feature in _column_features(schema, side) for column in _names(feature)]
    if source is not None:
        source.require([schema.id_column(side), *columns])
    elif columns:
        raise ConfigError(
            f"{side}.features: expected a table of {side}s with the column(s) {columns}, received "
            f"no such table; give data.{side}s, or remove these features"
        )


def check_entities(
    source: Source, *, schema: Schema, side: Side, id_kind: IdKind
) -> CheckedEntities:
    """Read a table of users or items, and collect its faulty rows.

    Every column keeps its values, in the type that holds them: `Int64` for integers, so that
    missing values leave them as they are. Those that features read are

    | feature | column |
    |---|---|
    | categorical | as all columns: what a token of it is, is read when it is used |
    | multi-valued, its weights | lists of integers or text, lists of floats; missing is [] |
    | numeric | `Int64`, or float64; missing is NA, or NaN |
    """
    id_column = schema.id_column(side)
    read = source.read(0, source.n_rows)
    rejects = Rejects(source.n_rows)
    ids = parse_ids(read.column(id_column), kind=id_kind)
    rejects.add(ids.missing, f"null {id_column}", columns=[id_column])
    rejects.add(ids.faulty, f"unparsable {id_column}", columns=[id_column])
    parsed = {id_column: ids.values}
    for feature in _column_features(schema, side):
        parsed |= _parse_feature(feature, read, rejects)
    good = rejects.good
    repeated = np.zeros(len(good), dtype=bool)
    repeated[good] = ids.values[good].duplicated()
    rejects.add(repeated, f"duplicate {id_column}", columns=[id_column])
    others = [column for column in read.frame.columns if column != id_column]
    parsed |= {
        column: tidy_shown(read.column(column), typed=read.typed)
        for column in others
        if column not in parsed
    }
    frame = pd.DataFrame({column: parsed[column] for column in [id_column, *others]})
    return CheckedEntities(
        rows=frame[rejects.good].reset_index(drop=True), faults=Faults.of(source, rejects)
    )


def entities_from_ids(ids: pd.Series, *, id_column: str) -> pd.DataFrame:
    """Make the table of a side that has none: one row an id, in order of first occurrence."""
    return pd.DataFrame({id_column: ids.drop_duplicates().reset_index(drop=True)})


def _column_features(schema: Schema, side: Side) -> list[Feature]:
    """List the features that have a column of their own; a history has none."""
    id_column = schema.id_column(side)
    return [
        feature
        for feature in schema.features(side)
        if not isinstance(feature, History) and feature.column != id_column
    ]


def _names(feature: Feature) -> list[str]:
    """List the columns that a feature reads."""
    weights = feature.weights if isinstance(feature, MultiValued) else None
    return [feature.column] if weights is None else [feature.column, weights]


def _parse_feature(feature: Feature, source: Rows, rejects: Rejects) -> dict[str, pd.Series]:
    """Parse the column of a feature, and of its weights, and collect the faults."""
    name = feature.column
    column = source.column(name)
    if isinstance(feature, MultiValued):
        weights = None if feature.weights is None else source.column(feature.weights)
        tokens, values = tidy_bags(column, weights, separator=feature.separator)
        rejects.add(tokens.faulty, f"unparsable {name}", columns=[name])
        if feature.weights is None or values is None:
            return {name: tokens.values}
        reason = f"{feature.weights} not finite numbers, one for each of {name}"
        rejects.add(values.faulty, reason, columns=[name, feature.weights])
        return {name: tokens.values, feature.weights: values.values}
    if isinstance(feature, Numeric):
        parsed = tidy_numbers(column)
    else:
        parsed = tidy_column(column, typed=source.typed)
    rejects.add(parsed.faulty, f"unparsable {name}", columns=[name])
    return {name: parsed.values}
