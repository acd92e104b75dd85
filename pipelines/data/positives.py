"""Positives: who chose what, in one table that is read as a version's interactions were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.columns.ids import IdKind
from pipelines.data.columns.times import TimeReading
from pipelines.data.faults.rejects import Faults, settle_rejects
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Rows, Source
from pipelines.data.steps.parse import parse_interactions, table_columns
from pipelines.table_config import DataConfig, InteractionsTable
from towers.errors import DataError
from towers.features.schema import Side

NAME = "interactions"
"""What messages call the table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Positives:
    """The positives of a table, and what became of its other rows."""

    pairs: pd.DataFrame
    """`user_id` and `item_id`, each pair once, in the order of the table."""
    times: NDArray[np.float64]
    """When each pair came first; NaN where that cannot be read, or the table has no times."""
    n_rows: int
    n_rejected: int
    """Rows at fault."""
    n_not_positive: int
    """Good rows of a low rating, or of a behaviour that is no target."""


def read_positives(
    table: Path | pd.DataFrame,
    data: DataConfig,
    *,
    id_kinds: Mapping[Side, IdKind],
    separator: str | None = None,
) -> Positives:
    """Read the positives of a table.

    Args:
        table: a file, a folder of files, or a DataFrame, in the format of the first of `data`'s
            tables that may hold targets, with the columns of users, items and ratings or events
            that one of these names; times and weights are not needed.
        data: how tables are read, and which interactions are positives.
        id_kinds: whether ids are integers or text.
        separator: of a CSV file with a header line; by default the format is `data`'s own.

    Raises:
        ConfigError: there is no such table, or it lacks a column.
        DataError: it cannot be read, rows are at fault (and `data.on_bad_rows` is `fail`), or none
            is a positive.
    """
    given = [
        one
        for one in data.tables
        if one.behaviour is None or data.kinds[one.behaviour].role == "target"
    ]
    known = [replace(one, timestamp=None, timestamp_format=None, weight=None) for one in given]
    form = known[0]
    if separator is not None:
        form = replace(form, separator=separator, columns=())
    source = _open(table, form)
    there = set(source.columns)
    fits = (there.issuperset(table_columns(one, ())) for one in known)
    place = next((place for place, fit in enumerate(fits) if fit), 0)
    described = known[place]
    columns = list(dict.fromkeys(table_columns(described, ())))
    source.require(columns)
    timestamp = given[place].timestamp if given[place].timestamp in there else None
    rows = source.read(0, source.n_rows, columns=list({*columns, *filter(None, [timestamp])}))
    parsed = parse_interactions(
        rows,
        described,
        behaviours=data.kinds,
        id_kinds=id_kinds,
        known_ids={},
        times=None,
    )
    faults = Faults.of(source, parsed.rejects)
    settle_rejects([faults], on_bad_rows=data.on_bad_rows, quarantine_dir=None)
    good = parsed.rejects.good
    chosen = good & parsed.rows["is_target"].to_numpy()
    ids = ["user_id", "item_id"]
    pairs = parsed.rows.loc[chosen, ids].assign(
        timestamp=_times(rows, timestamp, given[place].timestamp_format)[chosen]
    )
    pairs = pairs.groupby(ids, sort=False, as_index=False)["timestamp"].min()
    if not len(pairs):
        raise DataError(
            f"{source.where}: expected at least one positive interaction, received none among "
            f"{source.n_rows:,} rows; check the table, positive_rating and data.behaviours of the "
            "version's configuration"
        )
    return Positives(
        pairs=pairs[ids],
        times=pairs["timestamp"].to_numpy(np.float64),
        n_rows=source.n_rows + len(source.malformed),
        n_rejected=sum(faults.counts().values()),
        n_not_positive=int(np.count_nonzero(good & ~chosen)),
    )


def _times(rows: Rows, column: str | None, form: str | None) -> NDArray[np.float64]:
    """The time of each row; NaN where it cannot be read, or there is no such column."""
    if column is None:
        return np.full(len(rows.frame), np.nan)
    values = rows.column(column)
    return TimeReading.of([values], format=form).parse(values).values.to_numpy(np.float64)


def _open(table: Path | pd.DataFrame, described: InteractionsTable) -> Source:
    """Open the file or the folder, or take the DataFrame."""
    if isinstance(table, pd.DataFrame):
        return FrameSource.of(table, name=NAME, table=described)
    return open_source(replace(described, path=str(table)), name=NAME)
