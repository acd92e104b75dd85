"""Check a chunk of rows each by itself, and divide the good ones into blocks by their user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.hashing import blocks_of, draws, hash_ids
from pipelines.data.ids import IdKind
from pipelines.data.interactions import SIDES
from pipelines.data.positives import parse_interactions
from pipelines.data.rejects import Rejects
from pipelines.data.stream.engine import Outcome
from pipelines.data.stream.files import (
    ROW,
    by_block,
    checked_file,
    faults_file,
    write_groups,
    write_rows,
)
from pipelines.data.stream.source import StreamedTable
from towers.schema import Side


@dataclass(frozen=True, kw_only=True)
class Keys:
    """How the rows between the steps name users and items."""

    id_kinds: Mapping[Side, IdKind]
    known_ids: Mapping[Side, Path]
    """The ids of a side that has a table; see `read_ids`."""

    def column(self, side: Side) -> str:
        """The row of a side that has a table; else the id, whose row is not known yet."""
        return f"{side}_row" if side in self.known_ids else f"{side}_id"

    @property
    def pair(self) -> tuple[str, str]:
        """The columns of both sides."""
        return self.column("user"), self.column("item")

    def type(self, side: Side) -> pa.DataType:
        """The type of a side's column."""
        if side in self.known_ids:
            return ROW
        return pa.int64() if self.id_kinds[side] == "integer" else pa.string()


@dataclass(frozen=True, kw_only=True)
class CheckChunk:
    """Checks a chunk: reads it once, and writes its good rows and the positions of the others."""

    source: StreamedTable
    keys: Keys
    as_dates: bool
    """Whether times are dates."""
    n_blocks: int
    seed: int | None
    """Of the draws that decide on a random split; none are made without."""
    folder: Path

    def __call__(self, number: int) -> Outcome:
        """Check a chunk; says its number of rows, and what rows may be rejected for."""
        source = self.source.chunk(number)
        parsed = parse_interactions(
            source,
            self.source.table,
            id_kinds=self.keys.id_kinds,
            known_ids={side: read_ids(path) for side, path in self.keys.known_ids.items()},
            as_dates=self.as_dates,
        )
        start = self.source.start(number)
        self._write_faults(parsed.rejects, number, start=start)
        good = np.flatnonzero(parsed.rejects.good)
        rows = parsed.rows if len(good) == len(parsed.rows) else parsed.rows.iloc[good]
        users = hash_ids(rows["user_id"])
        columns = {name: rows[name].to_numpy() for name in self._names}
        columns["position"] = start + good
        if self.seed is not None:
            columns["draw"] = draws(users, hash_ids(rows["item_id"]), seed=self.seed)
        block = blocks_of(users, n_blocks=self.n_blocks)
        groups = by_block(columns, block, n_blocks=self.n_blocks, schema=self.schema)
        path = checked_file(self.folder, self.source.name, number)
        write_groups(path, groups, schema=self.schema)
        return {"rows": len(parsed.rows), "reasons": parsed.rejects.reasons}

    @property
    def _names(self) -> list[str]:
        """The columns that a row keeps."""
        times = [] if self.source.table.timestamp is None else ["timestamp"]
        return [*self.keys.pair, *times, "weight", "is_positive"]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the good rows."""
        types = {
            "timestamp": pa.float64(),
            "weight": pa.float32(),
            "is_positive": pa.bool_(),
            "position": pa.int64(),
            "draw": pa.uint64(),
        } | {self.keys.column(side): self.keys.type(side) for side in SIDES}
        names = [*self._names, "position", *([] if self.seed is None else ["draw"])]
        return pa.schema([(name, types[name]) for name in names])

    def _write_faults(self, rejects: Rejects, number: int, *, start: int) -> None:
        """Write where the rows at fault are, and why, if there are any."""
        positions = np.flatnonzero(~rejects.good)
        if len(positions):
            faults = {"position": start + positions, "reason": rejects.codes[positions]}
            write_rows(
                faults_file(self.folder, self.source.name, "checked", number), pa.table(faults)
            )


def write_ids(path: Path, ids: pd.Series) -> None:
    """Write the ids of a side, in order of their rows, where steps find them."""
    write_rows(path, pa.table({"id": pa.array(ids)}))


@lru_cache(maxsize=2)
def read_ids(path: Path) -> pd.Index:
    """Read ids; those read last stay in memory, with a hash table."""
    ids: pd.Index = pd.Index(pq.read_table(path)["id"].to_pandas())
    return ids
