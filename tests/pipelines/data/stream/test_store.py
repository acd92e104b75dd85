from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.stream.check import write_ids
from pipelines.data.stream.files import PAIR_SCHEMA, known_file, settled_file, write_rows
from pipelines.data.stream.store import Cuts, StoreBlock

PLACES = st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 9))


@given(
    rows=st.lists(PLACES, unique=True),
    cuts=st.lists(st.one_of(PLACES, st.none()), min_size=2, max_size=2),
)
def test_a_cut_is_by_time_and_then_by_position(
    rows: list[tuple[float, int]], cuts: list[tuple[float, int] | None]
) -> None:
    cuts.sort(key=lambda cut: (cut is None, cut))
    found = Cuts(validation=cuts[0], test=cuts[1]).parts(
        np.array([time for time, _ in rows], dtype=np.float64),
        np.array([position for _, position in rows], dtype=np.int64),
    )
    expected = [sum(cut is not None and row >= cut for cut in cuts) for row in rows]
    assert found.tolist() == expected


@pytest.mark.parametrize("n", [0, 3])
def test_a_block_is_written_by_user_from_old_to_new(tmp_path: Path, n: int) -> None:
    write_ids(tmp_path / "users.parquet", pd.Series(["c", "a", "b"]))
    write_ids(tmp_path / "items.parquet", pd.Series([70_000, 5]))
    (tmp_path / "blocks").mkdir()
    rows = {
        "user_id": pa.array(["a", "c", "a"][:n], pa.string()),
        "item_id": pa.array([5, 5, 70_000][:n], pa.int64()),
        "timestamp": pa.array([1.0, 2.0, 3.0][:n], pa.float64()),
        "position": pa.array([8, 3, 4][:n], pa.int64()),
        "weight": pa.array([1.0, 2.0, 3.0][:n], pa.float32()),
    }
    write_rows(settled_file(tmp_path, "interactions", 7), pa.table(rows))
    write_rows(settled_file(tmp_path, "test", 7), pa.table(rows).slice(0, 1))
    step = StoreBlock(
        tables=("interactions", "test"),
        ids={"user": tmp_path / "users.parquet", "item": tmp_path / "items.parquet"},
        cuts=Cuts(validation=(3.0, 0), test=None),
        n_known=0,
        folder=tmp_path,
        blocks=tmp_path / "blocks",
    )
    assert step(7) == {"rows": n + min(n, 1), "moved": 0}
    [path] = (tmp_path / "blocks").iterdir()
    assert path.name == "block-00007.parquet"
    found = pq.read_table(path).to_pydict()
    expected = [(0, 1, 2.0, 0), (1, 1, 1.0, 0), (1, 0, 3.0, 1), (1, 1, 1.0, 2)]
    assert list(zip(*found.values(), strict=True)) == (expected if n else [])
    assert not [path for path in tmp_path.iterdir() if len(path.name) == 32]


def test_what_moves_to_training_stands_where_its_time_is(tmp_path: Path) -> None:
    write_ids(tmp_path / "users.parquet", pd.Series(["a"]))
    write_ids(tmp_path / "items.parquet", pd.Series([10, 11, 12, 13, 14, 15]))
    (tmp_path / "blocks").mkdir()

    def settled(rows: list[tuple[int, float]], **more: pa.Array) -> pa.Table:
        items, times = zip(*rows, strict=True)
        columns = {
            "user_id": pa.array(["a"] * len(rows)),
            "item_id": pa.array(items, pa.int64()),
            "timestamp": pa.array(times, pa.float64()),
            "position": pa.array(range(len(rows)), pa.int64()),
            "weight": pa.array([1.0] * len(rows), pa.float32()),
        }
        return pa.table(columns | more)

    train, validation, test = range(3)
    parts = pa.array([train, validation, train, validation], pa.int8())
    interactions = settled([(10, 1.0), (11, 2.0), (12, 3.0), (13, 4.0)], part=parts)
    write_rows(settled_file(tmp_path, "interactions", 0), interactions)
    write_rows(settled_file(tmp_path, "test", 0), settled([(14, 2.5), (15, 2.7)]))
    known = pa.table({"user_row": [0, 0, 0], "item_row": [0, 1, 4]}, schema=PAIR_SCHEMA)
    write_rows(known_file(tmp_path, 0), known)
    step = StoreBlock(
        tables=("interactions", "test"),
        ids={"user": tmp_path / "users.parquet", "item": tmp_path / "items.parquet"},
        cuts=None,
        n_known=1,
        folder=tmp_path,
        blocks=tmp_path / "blocks",
    )
    assert step(0) == {"rows": 6, "moved": 2}
    found = pq.read_table(tmp_path / "blocks" / "block-00000.parquet")
    stored = list(zip(found["item_row"].to_pylist(), found["part"].to_pylist(), strict=True))
    in_time = [(0, train), (1, train), (4, train), (5, test), (2, train), (3, validation)]
    assert stored == in_time
