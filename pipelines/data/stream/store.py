"""Write a block as training reads it: by rows, with the part of each interaction."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.data.blocks import PARTS, SCHEMA, Rows, write_block
from pipelines.data.hold_out import pair_keys
from pipelines.data.interactions import SIDES
from pipelines.data.stream.check import read_ids
from pipelines.data.stream.engine import Outcome
from pipelines.data.stream.files import PAIR_SCHEMA, known_file, read_group, settled_file
from pipelines.data.stream.order import Place
from towers.schema import Side

TRAIN, VALIDATION, TEST = range(len(PARTS))

Times = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Where time cuts the interactions; none where nothing is behind a cut."""

    validation: Place | None
    """The first row behind training."""
    test: Place | None
    """The first row behind validation."""

    def parts(self, times: Times, positions: Rows) -> NDArray[np.int8]:
        """Give each interaction its part, [n]."""
        part = np.full(len(times), TRAIN, dtype=np.int8)
        for name, cut in ((VALIDATION, self.validation), (TEST, self.test)):
            if cut is not None:
                part[(times > cut[0]) | ((times == cut[0]) & (positions >= cut[1]))] = name
        return part


@dataclass(frozen=True, kw_only=True)
class StoreBlock:
    """Turns ids into rows and decides on the part, and writes the block."""

    tables: tuple[str, ...]
    """The interactions, then the test."""
    ids: Mapping[Side, Path]
    """All ids of a side, in order of rows."""
    cuts: Cuts | None
    """None where parts were drawn."""
    n_known: int
    """The number of files of pairs that are not to be held out."""
    folder: Path
    blocks: Path

    def __call__(self, number: int) -> Outcome:
        """Write a block; says its number of rows, and of those that moved to training."""
        found = [self._read(name, number) for name in self.tables]
        rows = pd.concat(found, ignore_index=True)
        is_moved = self._is_known(rows, number) & (rows["part"].to_numpy() != TRAIN)
        if is_moved.any():
            rows.loc[is_moved, "part"] = np.int8(TRAIN)
            by_time = [rows["time"]] if "time" in found[0] else []
            rows = rows.iloc[np.lexsort([rows["part"], *by_time])]
        rows = rows.iloc[_order(rows["user_row"].to_numpy())]
        apart = self.folder / uuid4().hex  # a step that is done twice must not write one file twice
        apart.mkdir()
        write_block(apart, number, pa.Table.from_pandas(rows[SCHEMA.names], preserve_index=False))
        for path in apart.iterdir():
            path.replace(self.blocks / path.name)
        shutil.rmtree(apart)
        return {"rows": len(rows), "moved": int(is_moved.sum())}

    def _read(self, table: str, number: int) -> pd.DataFrame:
        """Read the positives of one table, a user's from old to new; of one time, by part."""
        stored = pq.read_table(settled_file(self.folder, table, number))
        columns = {f"{side}_row": self._rows(stored, side) for side in SIDES}
        columns["weight"] = stored["weight"].to_numpy()
        times = stored["timestamp"].to_numpy() if "timestamp" in stored.column_names else None
        if times is not None and self.n_known:
            columns["time"] = times
        rows = pd.DataFrame(columns, copy=False)
        if table != self.tables[0]:
            return rows.assign(part=np.int8(TEST))
        if self.cuts is not None and times is not None:
            return rows.assign(part=self.cuts.parts(times, stored["position"].to_numpy()))
        rows["part"] = stored["part"].to_numpy()
        return rows.iloc[np.lexsort([rows["part"]] if times is None else [rows["part"], times])]

    def _is_known(self, rows: pd.DataFrame, number: int) -> NDArray[np.bool_]:
        """Say which rows [n] are of a pair that is not to be held out."""
        if not self.n_known:
            return np.zeros(len(rows), dtype=np.bool_)
        known = read_group([known_file(self.folder, file) for file in range(self.n_known)], number)
        ours, theirs = (
            pair_keys(*(found[name].to_numpy() for name in PAIR_SCHEMA.names))
            for found in (rows, known)
        )
        return np.isin(ours, theirs)

    def _rows(self, stored: pa.Table, side: Side) -> NDArray[np.int32]:
        """Give the row of each user or item."""
        if f"{side}_row" in stored.column_names:
            return np.asarray(stored[f"{side}_row"].to_numpy())
        ids = stored[f"{side}_id"].combine_chunks().dictionary_encode()
        found = read_ids(self.ids[side]).get_indexer(pd.Index(ids.dictionary.to_pandas()))
        return np.asarray(found.astype(np.int32)[ids.indices.to_numpy()])


def _order(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """The order of row numbers [n], equal ones as they come; two radix sorts of 16 bits."""
    halves = rows.view(np.uint32)
    return np.lexsort([halves.astype(np.uint16), (halves >> np.uint32(16)).astype(np.uint16)])
