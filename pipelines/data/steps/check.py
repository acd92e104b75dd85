"""Check a chunk of rows each by itself, and divide the good ones into blocks by their user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.columns.ids import IdKind
from pipelines.data.columns.times import TimeReading
from pipelines.data.steps.chunks import Chunks
from pipelines.data.steps.files import ROW, checked_file, write_by_block, write_faults, write_rows
from pipelines.data.steps.hashing import blocks_of, draws, hash_ids
from pipelines.data.steps.parse import context_column, parse_interactions
from pipelines.spark.tasks import Outcome
from towers.features.kinds import Numeric
from towers.features.schema import SIDES, Side

MOST_NAMES = 20
"""How many names of other behaviours a chunk gives, those that come most often."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """How checked rows name users and items."""

    id_kinds: Mapping[Side, IdKind]
    known_ids: Mapping[Side, Path]
    """The ids of a side that has a table; see `read_ids`."""

    def column(self, side: Side) -> str:
        """The row of a side that has a table; else the id, whose row is not known yet."""
        return f"{side}_row" if side in self.known_ids else f"{side}_id"

    def type(self, side: Side) -> pa.DataType:
        """The type of a side's column."""
        if side in self.known_ids:
            return ROW
        return pa.int64() if self.id_kinds[side] == "integer" else pa.string()


@dataclass(frozen=True, kw_only=True)
class CheckChunk:
    """Checks a chunk: reads it once, and writes its good rows and the positions of the others."""

    chunks: Chunks
    keys: Keys
    times: TimeReading | None
    """How times are read, if there are some."""
    n_blocks: int
    seed: int | None
    """The seed of the numbers that decide a random split; None where the split is by time."""
    folder: Path

    def __call__(self, number: int) -> Outcome:
        """Check a chunk; says its rows, what they may be rejected for, and their behaviours."""
        parsed = parse_interactions(
            self.chunks.read(number),
            self.chunks.table,
            behaviours=self.chunks.behaviours,
            id_kinds=self.keys.id_kinds,
            known_ids={side: read_ids(path) for side, path in self.keys.known_ids.items()},
            times=self.times,
            context=self.chunks.context,
        )
        start = self.chunks.start(number)
        rejects = parsed.rejects
        write_faults(
            self.folder,
            self.chunks.name,
            "checked",
            number,
            positions=start + rejects.positions,
            codes=rejects.codes[rejects.positions],
        )
        codes = parsed.rows["behaviour"].to_numpy()
        good = np.flatnonzero(rejects.good & (codes >= 0))
        counts = np.bincount(codes[good], minlength=len(self.chunks.behaviours))
        rows = parsed.rows if len(good) == len(parsed.rows) else parsed.rows.iloc[good]
        users = hash_ids(rows["user_id"])
        columns: dict[str, Any] = {str(name): rows[name].to_numpy() for name in rows}
        columns["position"] = start + good
        if self.seed is not None:
            columns["draw"] = draws(users, hash_ids(rows["item_id"]), seed=self.seed)
        write_by_block(
            checked_file(self.folder, self.chunks.name, number),
            columns,
            block=blocks_of(users, n_blocks=self.n_blocks),
            n_blocks=self.n_blocks,
            schema=self.schema,
        )
        return {
            "rows": len(parsed.rows),
            "reasons": rejects.reasons,
            "behaviours": dict(zip(self.chunks.behaviours, counts.tolist(), strict=True)),
            "n_others": int(parsed.others.sum()),
            "others": parsed.others.head(MOST_NAMES).to_dict(),
        }

    @property
    def schema(self) -> pa.Schema:
        """The columns of the good rows; what there is none of is null."""
        fields = {self.keys.column(side): self.keys.type(side) for side in SIDES} | {
            "position": pa.int64(),
            "timestamp": pa.float64(),
            "weight": pa.float32(),
            "behaviour": pa.int8(),
            "is_target": pa.bool_(),
            "draw": pa.uint64(),
        }
        for place, feature in enumerate(self.chunks.context):
            kind = pa.float64() if isinstance(feature, Numeric) else pa.string()
            fields[context_column(place)] = kind
        return pa.schema(list(fields.items()))


def write_ids(path: Path, ids: pd.Series) -> None:
    """Write the ids of a side, and their rows, where steps find them."""
    rows = pa.array(np.arange(len(ids), dtype=np.int32))
    write_rows(path, pa.table({"id": pa.array(ids), "row": rows}))


@lru_cache(maxsize=2)
def read_ids(path: Path) -> pd.Index:
    """Read the ids of a side; those of two sides stay in memory, with their hash tables."""
    ids: pd.Index = pd.Index(pq.read_table(path, columns=["id"])["id"].to_pandas())
    return ids
