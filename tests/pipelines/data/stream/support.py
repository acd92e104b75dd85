"""The stored way beside the way in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS, Part
from pipelines.data.hold_out import TrainedOn, hold_out_new
from pipelines.data.interactions import read_tables
from pipelines.data.prepare import Prepared, StoredPrepared, load_prepared, prepare
from pipelines.data.stream.engine import Engine, LocalEngine
from pipelines.data.stream.job import Sizes
from pipelines.data.stream.prepare import prepare_stored
from pipelines.progress import Reporter
from towers.errors import RecallError
from towers.typed import parse

SMALL = Sizes(chunk_rows=4, block_rows=6)


@dataclass(frozen=True, kw_only=True)
class Given:
    """Tables in a folder, and the settings of a run on them."""

    folder: Path
    settings: dict[str, Any]

    @property
    def config(self) -> RunConfig:
        return parse(RunConfig, self.settings, where="test")

    def in_memory(self, trained_on: TrainedOn | None = None) -> Prepared:
        tables = read_tables(self.config, quarantine_dir=self.folder / "rejects-memory")
        prepared = prepare(tables, self.config)
        return prepared if trained_on is None else hold_out_new(prepared, trained_on)

    def stored(
        self,
        *,
        sizes: Sizes = SMALL,
        engine: Engine | None = None,
        trained_on: TrainedOn | None = None,
    ) -> StoredPrepared:
        out = self.folder / "prepared"
        prepare_stored(
            self.config,
            out,
            engine=engine or LocalEngine(),
            quarantine_dir=self.folder / "rejects-stored",
            reporter=Reporter(),
            sizes=sizes,
            trained_on=trained_on,
        )
        found = load_prepared(out)
        assert isinstance(found, StoredPrepared)
        return found


def write_shards(folder: Path, rows: pd.DataFrame, *, cuts: list[int], schema: pa.Schema) -> None:
    """Write rows as shards, which begin at `cuts`."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pandas(rows, schema, preserve_index=False)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for number, start in enumerate(bounds[:-1]):
        shard = table.slice(start, bounds[number + 1] - start)
        pq.write_table(shard, folder / f"{number}.parquet", row_group_size=3)


def message_of(attempt: Any) -> str:
    """The error that an attempt ends with; empty without one."""
    try:
        attempt()
    except RecallError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def assert_same(held: Prepared, stored: StoredPrepared) -> None:
    """The same users, items, report and interactions, a user's in the same order."""
    pd.testing.assert_frame_equal(stored.users, held.users)
    pd.testing.assert_frame_equal(stored.items, held.items)
    lines = [line.replace("rejects-stored", "rejects-memory") for line in stored.lines]
    assert lines == list(held.lines)
    assert stored.counts == held.counts
    parts: list[tuple[Part, ...]] = [
        ("train",),
        ("validation",),
        ("test",),
        ("train", "validation"),
    ]
    for names in parts:
        expected, received = held.interactions(*names), stored.interactions(*names)
        matrix = received.of(np.arange(len(held.users)))
        np.testing.assert_array_equal(matrix.indptr, expected.matrix.indptr)
        np.testing.assert_array_equal(matrix.indices, expected.matrix.indices)
        np.testing.assert_array_equal(matrix.data, expected.matrix.data)
        np.testing.assert_array_equal(received.user_counts, expected.user_counts)
        np.testing.assert_array_equal(received.item_counts, expected.item_counts)
        assert received.has_times == ("timestamp" in held.train)
    assert len(PARTS) == 3
