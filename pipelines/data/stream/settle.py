"""Settle a block: what the rows of a user decide among themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.data.interactions import SIDES
from pipelines.data.positives import take_positives
from pipelines.data.split import Fractions, parts_at_random
from pipelines.data.stream.engine import Outcome
from pipelines.data.stream.files import (
    ROW,
    checked_file,
    faults_file,
    read_group,
    settled_file,
    write_rows,
)


@dataclass(frozen=True, kw_only=True)
class SettleBlock:
    """Takes the positives of a block, in order of time, and rejects rows that repeat another."""

    chunks: Mapping[str, int]
    """The number of chunks of each table; the interactions, then the test."""
    reasons: Mapping[str, int]
    """The place among each table's reasons of a repeated row."""
    pair: tuple[str, str]
    """The columns of users and items."""
    random: Fractions | None
    """The shares that are held out at random, if they are."""
    folder: Path

    def __call__(self, number: int) -> Outcome:
        """Settle a block; says its number of rows, and what became of each table's."""
        stored = [self._read(name, n_chunks, number) for name, n_chunks in self.chunks.items()]
        outcome: Outcome = {"rows": sum(map(len, stored)), "counts": {}, "extremes": {}}
        coded = _Coded.of(stored, pair=self.pair)
        seen: pd.DataFrame | None = None
        for name, table, rows in zip(self.chunks, stored, coded.rows, strict=True):
            taken = take_positives(self._distinct(rows, name, number), seen=seen, pair=["pair"])
            outcome["counts"][name] = dataclasses.asdict(taken.counts)
            settled = taken.rows
            if seen is None:
                seen = settled
                settled = self._divided(settled)
            columns = coded.decoded(settled, schema=table.schema)
            if not outcome["extremes"]:
                outcome["extremes"] = {column: _extremes(columns[column]) for column in self.pair}
            write_rows(settled_file(self.folder, name, number), columns)
        return outcome

    def _read(self, name: str, n_chunks: int, number: int) -> pa.Table:
        """Read a table's rows of a block, in their order."""
        paths = [checked_file(self.folder, name, chunk) for chunk in range(n_chunks)]
        return read_group(paths, number)

    def _distinct(self, rows: pd.DataFrame, name: str, number: int) -> pd.DataFrame:
        """Leave out the rows that repeat another, and write where they are."""
        key = [column for column in rows if column in {"pair", "timestamp"}]
        repeated = rows["pair"].duplicated(keep=False).to_numpy()  # in most tables, not many
        repeated[repeated] = rows.loc[repeated, key].duplicated()
        if not repeated.any():
            return rows
        positions = rows["position"].to_numpy()[repeated]
        reason = np.full(len(positions), self.reasons[name], dtype=np.int16)
        faults = pa.table({"position": positions, "reason": reason})
        write_rows(faults_file(self.folder, name, "settled", number), faults)
        return rows[~repeated]

    def _divided(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Give each row its part, where that is drawn."""
        if self.random is None:
            return rows
        part = parts_at_random(rows["user"], rows["draw"].to_numpy(), fractions=self.random)
        return rows.drop(columns="draw").assign(part=part)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Coded:
    """The rows of a block with users, items and their pairs as integers."""

    rows: Sequence[pd.DataFrame]
    """Of each table: user, item and pair (int64), and the other columns."""
    names: Mapping[str, pa.Array | None]
    """The ids behind the integers, by column; none where they are rows already."""

    @classmethod
    def of(cls, tables: Sequence[pa.Table], *, pair: tuple[str, str]) -> _Coded:
        """Number the ids of a block, the same in all its tables."""
        joined = pa.concat_tables([table.select(pair) for table in tables])
        codes: dict[str, NDArray[np.int64]] = {}
        names: dict[str, pa.Array | None] = {}
        for side, column in zip(SIDES, pair, strict=True):
            codes[side], names[column] = _codes(joined[column])
        n_items = int(codes["item"].max(initial=0)) + 1
        codes["pair"] = codes["user"] * n_items + codes["item"]
        rows, start = [], 0
        for table in tables:
            stop = start + table.num_rows
            own = {name: values[start:stop] for name, values in codes.items()}
            own |= {name: table[name].to_numpy() for name in table.column_names if name not in pair}
            rows.append(pd.DataFrame(own, copy=False))
            start = stop
        return cls(rows=rows, names=names)

    def decoded(self, rows: pd.DataFrame, *, schema: pa.Schema) -> pa.Table:
        """Give settled rows as they were stored, with their part where they have one."""
        columns: dict[str, pa.Array] = {}
        for side, (column, names) in zip(SIDES, self.names.items(), strict=True):
            codes = pa.array(rows[side].to_numpy())
            columns[column] = (
                codes.cast(schema.field(column).type) if names is None else names.take(codes)
            )
        others = [name for name in ("timestamp", "position", "weight", "part") if name in rows]
        return pa.table(columns | {name: pa.array(rows[name].to_numpy()) for name in others})


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array | None]:
    """Number the values of a column, unless they are row numbers already; with the values."""
    if column.type == ROW:
        return column.to_numpy().astype(np.int64), None
    coded = column.combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary


def _extremes(column: pa.ChunkedArray) -> list[int] | list[str] | None:
    """The least and the greatest value; none without rows."""
    found = pc.min_max(column).as_py()
    return None if found["min"] is None else [found["min"], found["max"]]
