"""A table of interactions in chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipelines.behaviours import Behaviours
from pipelines.data.columns.ids import IdColumn
from pipelines.data.columns.times import TimeReading
from pipelines.data.faults.rejects import Rejects
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.source import Rows, Source
from pipelines.data.steps.parse import parse_values, table_columns
from pipelines.table_config import InteractionsTable
from towers.features.kinds import Categorical, Numeric

INTERACTIONS, TEST = "interactions", "test"
"""What tables of interactions are called."""

SAMPLE = 1000
"""How many rows are read first, since they most often hold the value that is looked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunks:
    """A table of interactions, and how many of its rows are read at a time."""

    source: Source
    table: InteractionsTable
    """What its columns mean."""
    chunk_rows: int
    behaviours: Behaviours
    """What users do, by name."""
    context: tuple[Categorical | Numeric, ...] = ()
    """The features of the moment that the interactions have."""

    @property
    def name(self) -> str:
        """What to call the table: interactions or test."""
        return self.source.name

    @property
    def n_rows(self) -> int:
        """Its rows."""
        return self.source.n_rows

    @property
    def n_chunks(self) -> int:
        """How many chunks its rows make; one if there are none."""
        return max(-(-self.n_rows // self.chunk_rows), 1)

    def start(self, number: int) -> int:
        """The position of the first row of a chunk."""
        return number * self.chunk_rows

    def read(self, number: int, *, columns: Sequence[str] | None = None) -> Rows:
        """Read some columns, by default all that have a meaning, of a chunk."""
        start = self.start(number)
        stop = min(start + self.chunk_rows, self.n_rows)
        return self.source.read(start, stop, columns=columns or self.columns)

    @property
    def columns(self) -> list[str]:
        """The columns that have a meaning."""
        return list(dict.fromkeys(table_columns(self.table, self.context)))

    def sample_ids(self, column: str) -> IdColumn:
        """Read ids until they tell whether all of them are integers or text.

        In a file, one tells it where columns have types, and otherwise one that is no integer, in
        a row that is not rejected for something else.
        """
        stretches = self._stretches()
        if isinstance(self.source, FrameSource):  # a column may hold values of several types
            stretches = iter([(0, self.n_rows)])
        found = IdColumn(source=self.source.read(0, 0, columns=[column]), column=column)
        for start, stop in stretches:
            read = self.source.read(start, stop, columns=[column])
            ids = IdColumn(source=read, column=column, is_first=start == 0)
            if not read.typed and len(ids.odd):
                ids = self._without_rejected(ids, start=start)
            if len(ids.present):
                found = ids
                if ids.source.typed or len(ids.odd):
                    break
        return found

    def _without_rejected(self, ids: IdColumn, *, start: int) -> IdColumn:
        """Leave out the ids that are no integers, in rows that are rejected for something else.

        The ids are those of the rows from `start` on.
        """
        rejects = Rejects(len(ids.odd))
        rows = self.source.read(start, start + len(ids.source.frame), columns=self.columns)
        odd = rows.take(ids.odd)
        parse_values(odd, self.table, behaviours=self.behaviours, times=self.times, rejects=rejects)
        rejected = ids.odd[rejects.positions]
        kept = np.setdiff1d(np.arange(len(ids.source.frame)), rejected)
        return replace(ids, source=ids.source.take(kept)) if len(rejected) else ids

    @cached_property
    def times(self) -> TimeReading | None:
        """How its times are read; looks at all of them where their type does not say so.

        Raises:
            ConfigError: there is no such `timestamp_format`.
        """
        name = self.table.timestamp
        if name is None:
            return None
        pieces = (self.source.read(*stretch, columns=[name]) for stretch in self._stretches())
        columns = (piece.column(name) for piece in pieces)
        return TimeReading.of(columns, format=self.table.timestamp_format)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """All rows: a few of them, the rest of their chunk, and the other chunks."""
        ends = range(self.chunk_rows, self.n_rows, self.chunk_rows)
        stops = sorted({min(SAMPLE, self.n_rows), *ends, self.n_rows})
        yield from zip([0, *stops], stops, strict=False)
