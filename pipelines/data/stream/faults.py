"""The rows at fault of a streamed table, read again where they are shown or set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.data.rejects import Reason, Rejects
from pipelines.data.stream.source import StreamedTable
from pipelines.data.tables import SourceTable


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedFaults:
    """The positions of the rows at fault, ten bytes each, and why; see `rejects.Faults`."""

    source: StreamedTable
    reasons: tuple[Reason, ...]
    """In the order of the checks."""
    positions: NDArray[np.int64]
    """Ascending, [n]."""
    codes: NDArray[np.int16]
    """The place in `reasons` of each, [n]."""

    @classmethod
    def gather(
        cls, source: StreamedTable, *, reasons: Sequence[Reason], folder: Path
    ) -> StreamedFaults:
        """Collect what the steps wrote."""
        files = sorted(folder.glob(f"{source.name}-*-faults-*.parquet"))
        empty = pa.table({"position": pa.array([], pa.int64()), "reason": pa.array([], pa.int16())})
        found = pa.concat_tables([empty, *(pq.read_table(path) for path in files)])
        found = found.sort_by("position")
        return cls(
            source=source,
            reasons=tuple(reasons),
            positions=found["position"].to_numpy(),
            codes=found["reason"].to_numpy(),
        )

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.source.name

    def counts(self) -> dict[str, int]:
        """Count the rejected rows by reason, in the order of the checks."""
        counts: dict[str, int] = {}
        found = np.bincount(self.codes, minlength=len(self.reasons)).tolist()
        for (reason, _), count in zip(self.reasons, found, strict=True):
            counts[reason] = counts.get(reason, 0) + count
        return {reason: count for reason, count in counts.items() if count}

    def first(self, limit: int) -> list[str]:
        """Show the first rows at fault as `file:row: reason: value`."""
        names = self.source.files.schema.names
        shown = []
        for position, code in zip(self.positions[:limit].tolist(), self.codes, strict=False):
            row = self.source.read(position, position + 1, columns=names)
            shown += self._rejects(row, np.array([code])).first(1)
        return shown

    def frames(self) -> Iterator[pd.DataFrame]:
        """Give the rejected rows as they were read, with file, row and reason, a few at a time."""
        done = 0
        for rows in self.source.rows_at(self.positions):
            codes = self.codes[done : done + len(rows.frame)]
            yield self._rejects(rows, codes).rows()
            done += len(rows.frame)

    def _rejects(self, rows: SourceTable, codes: NDArray[np.int16]) -> Rejects:
        return Rejects.found(rows, reasons=self.reasons, codes=codes)
