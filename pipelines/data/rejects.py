"""The rows that break the rules of their table: collect them, then fail or set them aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.tables import SourceTable
from serving.atomic import open_atomic
from towers.errors import DataError

SHOWN_ROWS = 5
SHOWN_CHARACTERS = 80

Reason = tuple[str, tuple[str, ...]]
"""Why rows are rejected, and the columns whose values explain it."""


class Faults(Protocol):
    """The faulty rows of one table, wherever they are."""

    @property
    def name(self) -> str:
        """What the table is called."""
        ...

    def counts(self) -> dict[str, int]:
        """Count the rejected rows by reason, in the order of the checks."""
        ...

    def first(self, limit: int) -> list[str]:
        """Show the first rows at fault as `file:row: reason: value`."""
        ...

    def frames(self) -> Iterator[pd.DataFrame]:
        """Give the rejected rows as they were read, with their file, row and reason."""
        ...


class Rejects:
    """The faulty rows of one table, each with the first reason that was found."""

    def __init__(self, source: SourceTable) -> None:
        """Start with the lines of `source` that could not be cut into its columns."""
        self.source = source
        self.reasons: list[Reason] = []
        """With the columns whose values explain them."""
        self.codes = np.full(len(source.frame), -1, dtype=np.int16)
        """The place in `reasons` of each row's reason, -1 for a row without a fault."""

    def add(self, faulty: NDArray[np.bool_], reason: str, *, columns: Sequence[str] = ()) -> None:
        """Reject the rows that are `faulty` [n_rows] and not rejected yet.

        `columns` are those whose values explain the reason.
        """
        self.codes[faulty & (self.codes < 0)] = len(self.reasons)
        self.reasons.append((reason, tuple(columns)))

    @classmethod
    def found(
        cls, source: SourceTable, *, reasons: Sequence[Reason], codes: NDArray[np.int16]
    ) -> Rejects:
        """Take what was found before: the place in `reasons` of each row's, or -1 [n_rows]."""
        rejects = cls(source)
        rejects.reasons = list(reasons)
        rejects.codes = codes
        return rejects

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.source.name

    @property
    def good(self) -> NDArray[np.bool_]:
        """The rows [n_rows] without a fault so far."""
        return self.codes < 0

    def counts(self) -> dict[str, int]:
        """Count the rejected rows by reason, in the order of the checks."""
        counts = dict(Counter(line.reason for line in self.source.malformed))
        for code, (reason, _) in enumerate(self.reasons):
            counts[reason] = counts.get(reason, 0) + int((self.codes == code).sum())
        return {reason: count for reason, count in counts.items() if count}

    def first(self, limit: int) -> list[str]:
        """Show the first rows at fault as `file:row: reason: value`."""
        positions = np.flatnonzero(~self.good)[:limit]
        order = {shard.file: number for number, shard in enumerate(self.source.shards)}
        shown = [
            (
                order[line.file],
                line.row,
                f"{line.file}:{line.row}: {line.reason}: {_cut(repr(line.text))}",
            )
            for line in self.source.malformed[:limit]
        ]
        for position, (file, row) in zip(positions, self.source.locate(positions), strict=True):
            reason, columns = self.reasons[self.codes[position]]
            values = self.source.frame.loc[[position], list(columns)].to_dict("records")[0].values()
            value = _cut(", ".join(repr(value) for value in values))
            shown.append((order[file], row, f"{file}:{row}: {reason}: {value}"))
        return [line for _, _, line in sorted(shown)[:limit]]

    def frames(self) -> Iterator[pd.DataFrame]:
        """Give the rejected rows, all at once."""
        yield self.rows()

    def rows(self) -> pd.DataFrame:
        """Give the rejected rows as they were read, with their file, row and reason.

        A malformed line stands whole in the first column.
        """
        positions = np.flatnonzero(~self.good)
        places = self.source.locate(positions)
        rows = self.source.frame.iloc[positions].reset_index(drop=True)
        why = pd.DataFrame(
            {
                "file": [file for file, _ in places],
                "row": [row for _, row in places],
                "reason": [self.reasons[code][0] for code in self.codes[positions]],
            }
        )
        lines = self.source.malformed
        broken = pd.DataFrame(
            [[line.text] + [""] * (rows.shape[1] - 1) for line in lines], columns=rows.columns
        )
        where = pd.DataFrame(
            [(line.file, line.row, line.reason) for line in lines], columns=why.columns
        )
        found = [
            pd.concat([values, places], axis=1)
            for values, places in ((broken, where), (rows, why))
            if len(values)
        ]
        return pd.concat(found, ignore_index=True)


def settle_rejects(
    rejects: Sequence[Faults],
    *,
    on_bad_rows: Literal["fail", "quarantine"],
    quarantine_dir: Path | None,
) -> dict[str, Path]:
    """Fail if any row is rejected, or write each table's to `quarantine_dir`/<table>.csv.

    Without a `quarantine_dir`, rejected rows are counted only. Returns the file of each table
    that has rejected rows.

    Raises:
        DataError: there are rejected rows, and `on_bad_rows` is `fail`.
    """
    found = [table for table in rejects if table.counts()]
    if found and on_bad_rows == "fail":
        raise DataError(_complaint(found))
    if quarantine_dir is None:
        return {}
    return {table.name: _write(table, quarantine_dir) for table in found}


def _complaint(found: Sequence[Faults]) -> str:
    """Count the rows at fault by reason, show the first of them, and say what to do."""
    total = sum((Counter(table.counts()) for table in found), Counter[str]()).total()
    counts = [
        f"  {table.name}: {count} x {reason}"
        for table in found
        for reason, count in table.counts().items()
    ]
    shown = [f"  {line}" for table in found for line in table.first(SHOWN_ROWS)][:SHOWN_ROWS]
    return "\n".join(
        [
            f"{total} row(s) at fault in the tables:",
            *counts,
            "the first of them:",
            *shown,
            'mend these rows, or set on_bad_rows = "quarantine" under [data] to set them aside',
        ]
    )


def _write(rejects: Faults, folder: Path) -> Path:
    """Write a table's rejected rows as one CSV file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{rejects.name}.csv"
    with open_atomic(path) as file:
        for number, frame in enumerate(rejects.frames()):
            frame.to_csv(file, index=False, header=number == 0)
    return path


def _cut(text: str) -> str:
    """Shorten a text that would fill the screen."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
