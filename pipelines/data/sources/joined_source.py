"""Several tables of interactions, one after another, as one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pandas as pd

from pipelines.data.sources.source import Rows, Source
from pipelines.table_config import InteractionsTable
from towers.errors import ConfigError

EVENT = "behaviour"
"""The column that says what users did, where the first table has none of events."""
KINDS = {"i": "integers", "f": "numbers", "O": "text", "M": "dates"}
"""Kinds of columns by the letter that NumPy has for them."""
MEANINGS = ("user", "item", "timestamp", "rating", "event", "weight")
"""The settings that name columns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedSource(Source):
    """The rows of all tables. Columns have the names of the first table that has one of their kind.

    What a table lacks is missing in its rows: ratings, and the context. A weight is 1.
    """

    parts: tuple[Source, ...]
    tables: tuple[InteractionsTable, ...]
    """What the columns of each mean."""
    table: InteractionsTable
    """What the columns of all of them mean."""

    @classmethod
    def of(cls, parts: Sequence[Source], tables: Sequence[InteractionsTable]) -> JoinedSource:
        """Join tables that are open.

        Raises:
            ConfigError: a table lacks a column that it names, or does not fit to the first.
        """
        table = _joined_table(tables)
        for part, own in zip(parts, tables, strict=True):
            part.require([c for c in map(_column_of(own), MEANINGS) if c is not None])
        _check_fit(parts, tables)
        named = [c for c in map(_column_of(table), MEANINGS) if c is not None]
        of_parts = chain.from_iterable(part.columns for part in parts)
        return cls(
            name=parts[0].name,
            where=f"{parts[0].where} and {len(parts) - 1} more",
            typed=parts[0].typed,
            columns=tuple(dict.fromkeys([*named, *of_parts])),
            n_rows=sum(part.n_rows for part in parts),
            malformed=tuple(chain.from_iterable(part.malformed for part in parts)),
            empty_lines=sum(part.empty_lines for part in parts),
            notes=tuple(
                note for part in parts for note in (f"{part.n_rows:,} of {part.where}", *part.notes)
            ),
            parts=tuple(parts),
            tables=tuple(tables),
            table=table,
        )

    def read(self, start: int, stop: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Read some columns of the rows from a position up to another; see `Source.read`."""
        names = list(dict.fromkeys(self.columns if columns is None else columns))
        ends = accumulate(part.n_rows for part in self.parts)
        pieces = []
        for part, own, end in zip(self.parts, self.tables, ends, strict=True):
            first = min(max(start - end + part.n_rows, 0), part.n_rows)
            last = min(max(stop - end + part.n_rows, first), part.n_rows)
            pieces.append(self._read_part(part, own, first, last, names))
        frames = [frame for _, frame in pieces if len(frame)] or [pieces[0][1]]
        return Rows(
            name=self.name,
            where=self.where,
            frame=pd.DataFrame({name: _stack([frame[name] for frame in frames]) for name in names}),
            typed=self.typed,
            shards=tuple(chain.from_iterable(rows.shards for rows, _ in pieces)),
        )

    def _read_part(
        self, part: Source, own: InteractionsTable, start: int, stop: int, names: Sequence[str]
    ) -> tuple[Rows, pd.DataFrame]:
        """Rows of one table, and their columns under the names of all."""
        column = _column_of(own)
        meanings = {_column_of(self.table)(meaning): meaning for meaning in MEANINGS}
        theirs = {name: column(meanings[name]) if name in meanings else name for name in names}
        held = [c for c in dict.fromkeys(theirs.values()) if c in part.columns]
        rows = part.read(start, stop, columns=held or part.columns[:1])
        size = len(rows.frame)
        values: dict[str, Any] = {}
        for name, source in theirs.items():
            if source is not None and source in part.columns:
                values[name] = rows.column(source)
            elif name == self.table.event:
                values[name] = np.full(size, own.behaviour, dtype=object)
            elif name == self.table.weight:
                values[name] = np.full(size, 1.0 if self.typed else "1", dtype=object)
            else:
                values[name] = np.full(size, None, dtype=object)
        return rows, pd.DataFrame(values, index=rows.frame.index)


def _stack(columns: Sequence[pd.Series]) -> pd.Series:
    """Put columns one after another; values of several types stay as they are."""
    if len({str(column.dtype) for column in columns}) > 1:
        columns = [column.astype(object) for column in columns]
    return pd.concat(columns, ignore_index=True)


def _column_of(table: InteractionsTable) -> Any:
    """Give the column that has a meaning, by the name of the setting; None where there is none."""
    return lambda meaning: getattr(table, meaning)


def _joined_table(tables: Sequence[InteractionsTable]) -> InteractionsTable:
    """Say what the columns of all tables mean."""

    def first(name: str) -> Any:
        return next((v for v in (getattr(one, name) for one in tables) if v is not None), None)

    return replace(
        tables[0],
        event=first("event") or EVENT,
        behaviour=None,
        rating=first("rating"),
        positive_rating=first("positive_rating"),
        weight=first("weight"),
    )


def _check_fit(parts: Sequence[Source], tables: Sequence[InteractionsTable]) -> None:
    """Refuse a table whose ids or times are not of the kind of the first one's.

    Raises:
        ConfigError: with both.
    """
    thresholds = {table.positive_rating for table in tables if table.rating is not None}
    if len(thresholds) > 1:
        raise ConfigError(
            "data.more_interactions: expected one positive_rating in all tables that have ratings, "
            f"received {sorted(map(str, thresholds))}; bring the ratings to one scale"
        )
    kinds = [_kinds(part, table) for part, table in zip(parts, tables, strict=True)]
    for part, found in zip(parts, kinds, strict=True):
        for what, kind in found.items():
            if kind != kinds[0][what]:
                raise ConfigError(
                    f"data.more_interactions: expected {what} as in {parts[0].where}, "
                    f"{kinds[0][what]}, received {kind} in {part.where}; write all tables alike"
                )


def _kinds(part: Source, table: InteractionsTable) -> dict[str, str]:
    """What has to be the same in all tables."""
    found = {"the kind of file": "Parquet" if part.typed else "CSV"}
    found["timestamp_format"] = str(table.timestamp_format)
    frame = part.read(0, 0).frame
    for meaning in ("user", "item", "timestamp"):
        column = getattr(table, meaning)
        kind = "none" if column is None else frame[column].dtype.kind
        found[f"the {meaning} column"] = KINDS.get(kind, kind)
    return found
