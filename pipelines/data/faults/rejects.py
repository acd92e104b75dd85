"""Rows that break the rules of their table: collect them, then fail or set them aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.sources.source import Rows, Source
from serving.atomic import open_atomic
from towers.errors import DataError

SHOWN_ROWS = 5
SHOWN_CHARACTERS = 80

Reason = tuple[str, tuple[str, ...]]
"""Why rows are rejected, and the columns whose values explain it."""


class Rejects:
    """Collects the faulty rows among some rows, each with the first reason that was found."""

    def __init__(self, n_rows: int) -> None:
        """Start without any."""
        self.reasons: list[Reason] = []
        """With the columns whose values explain them."""
        self.codes = np.full(n_rows, -1, dtype=np.int16)
        """The place in `reasons` of each row's reason, -1 for a row without a fault."""

    def add(self, faulty: NDArray[np.bool_], reason: str, *, columns: Sequence[str] = ()) -> None:
        """Reject the rows that are `faulty` [n_rows] and not rejected yet.

        `columns` are those whose values explain the reason.
        """
        self.codes[faulty & (self.codes < 0)] = len(self.reasons)
        self.reasons.append((reason, tuple(columns)))

    @property
    def good(self) -> NDArray[np.bool_]:
        """The rows [n_rows] without a fault so far."""
        return self.codes < 0

    @property
    def positions(self) -> NDArray[np.int64]:
        """The rows at fault, by their place among the rows, ascending."""
        return np.flatnonzero(~self.good)


@dataclass(frozen=True, kw_only=True, eq=False)
class Faults:
    """The faulty rows of a table by their positions; they are read again to be shown."""

    source: Source
    reasons: Sequence[Reason]
    """In the order of the checks."""
    positions: NDArray[np.int64]
    """Ascending, [n]."""
    codes: NDArray[np.int16]
    """The place in `reasons` of each, [n]."""

    @classmethod
    def of(cls, source: Source, rejects: Rejects) -> Faults:
        """Take those that were collected over the whole table."""
        at = rejects.positions
        codes = rejects.codes[at]
        return cls(source=source, reasons=rejects.reasons, positions=at, codes=codes)

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.source.name

    def counts(self) -> dict[str, int]:
        """Count the rejected rows by reason, in the order of the checks."""
        counts = Counter(line.reason for line in self.source.malformed)
        found = np.bincount(self.codes, minlength=len(self.reasons)).tolist()
        for (reason, _), count in zip(self.reasons, found, strict=True):
            counts[reason] += count
        return {reason: count for reason, count in counts.items() if count}

    def first(self, limit: int) -> list[str]:
        """Show the first rows at fault as `file:row: reason: value`."""
        order = {shard.file: n for n, shard in enumerate(self.source.read(0, 0).shards)}
        shown = [
            (order[line.file], line.row, f"{line.reason}: {_cut(repr(line.text))}")
            for line in self.source.malformed[:limit]
        ]
        for rows, codes in self._pieces(limit):
            places = rows.locate(np.arange(len(codes)))
            for position, ((file, row), code) in enumerate(zip(places, codes, strict=True)):
                reason, columns = self.reasons[code]
                [values] = rows.frame.loc[[position], list(columns)].to_dict("records")
                value = _cut(", ".join(map(repr, values.values())))
                shown.append((order[file], row, f"{reason}: {value}"))
        files = list(order)
        return [f"{files[file]}:{row}: {text}" for file, row, text in sorted(shown)[:limit]]

    def frames(self) -> Iterator[pd.DataFrame]:
        """Give the rejected rows as they were read, with their file, row and reason, in pieces.

        A malformed line stands whole in the first column.
        """
        lines = self.source.malformed
        if lines:
            values = [[line.text] + [""] * (len(self.source.columns) - 1) for line in lines]
            broken = pd.DataFrame(values, columns=list(self.source.columns))
            yield _explained(broken, [(line.file, line.row, line.reason) for line in lines])
        for rows, codes in self._pieces():
            places = rows.locate(np.arange(len(codes)))
            why = [
                (*place, self.reasons[code][0]) for place, code in zip(places, codes, strict=True)
            ]
            yield _explained(rows.frame, why)

    def _pieces(self, limit: int | None = None) -> Iterator[tuple[Rows, NDArray[np.int16]]]:
        """Read rows at fault, by default all of them, with their codes."""
        done = 0
        for rows in self.source.rows_at(self.positions[:limit]):
            yield rows, self.codes[done : done + len(rows.frame)]
            done += len(rows.frame)


def _explained(rows: pd.DataFrame, why: Sequence[tuple[str, int, str]]) -> pd.DataFrame:
    """Put file, row and reason beside rejected rows."""
    found = pd.DataFrame(why, columns=["file", "row", "reason"])
    return pd.concat([rows.reset_index(drop=True), found], axis=1)


def settle_rejects(
    tables: Sequence[Faults],
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
    found = [table for table in tables if table.counts()]
    if found and on_bad_rows == "fail":
        raise DataError(_complaint(found))
    if quarantine_dir is None:
        return {}
    return {table.name: _write(table, quarantine_dir) for table in found}


def explain_rejects(tables: Sequence[Faults]) -> list[str]:
    """Count the rows at fault by reason, and show the first of them; nothing if there are none."""
    counts = [
        f"  {table.name}: {count:,} x {reason}"
        for table in tables
        for reason, count in table.counts().items()
    ]
    if not counts:
        return []
    shown = [f"  {line}" for table in tables for line in table.first(SHOWN_ROWS)][:SHOWN_ROWS]
    return [*counts, "the first of them:", *shown]


def _complaint(found: Sequence[Faults]) -> str:
    """Say which rows are at fault, and what to do."""
    total = sum(count for table in found for count in table.counts().values())
    return "\n".join(
        [
            f"{total:,} row(s) at fault in the tables:",
            *explain_rejects(found),
            'mend these rows, or set on_bad_rows = "quarantine" under [data] to set them aside',
        ]
    )


def _write(faults: Faults, folder: Path) -> Path:
    """Write a table's rejected rows as one CSV file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{faults.name}.csv"
    with open_atomic(path) as file:
        for number, frame in enumerate(faults.frames()):
            frame.to_csv(file, index=False, header=number == 0)
    return path


def _cut(text: str) -> str:
    """Shorten a text that would fill the screen."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
