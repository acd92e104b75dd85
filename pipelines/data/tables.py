"""Read a table whole, from a file, a folder or a DataFrame, knowing where each row was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipelines.config import FileFormat
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import MalformedLine, Rows, Source


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceTable(Rows):
    """All rows of a table."""

    source: Source | None = None
    """What it was read from."""

    @property
    def malformed(self) -> tuple[MalformedLine, ...]:
        """CSV lines that are no rows."""
        return () if self.source is None else self.source.malformed

    @property
    def empty_lines(self) -> int:
        """CSV lines without a single value."""
        return 0 if self.source is None else self.source.empty_lines

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks any of `columns`; see `Source.require`."""
        if self.source is not None:
            self.source.require(columns)


def read_table(source: FileFormat, *, name: str) -> SourceTable:
    """Read a table from the file or the folder that `source` names; see `open_source`."""
    return read_whole(open_source(source, name=name))


def wrap_frame(frame: pd.DataFrame, *, name: str) -> SourceTable:
    """Take a DataFrame as a table; its row numbers are positions, as `iloc` counts them."""
    return read_whole(FrameSource.of(frame, name=name))


def read_whole(source: Source) -> SourceTable:
    """Read all rows of a source."""
    rows = source.read(0, source.n_rows)
    return SourceTable(**vars(rows), source=source)
