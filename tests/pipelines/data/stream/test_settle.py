from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.split import Fractions
from pipelines.data.stream.files import checked_file, faults_file, settled_file, write_groups
from pipelines.data.stream.settle import SettleBlock

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_row": pa.int32(),
        "timestamp": pa.float64(),
        "weight": pa.float32(),
        "is_positive": pa.bool_(),
        "position": pa.int64(),
    }
)
Row = tuple[str, int, float, bool, int]


def write(folder: Path, table: str, chunk: int, *blocks: list[Row]) -> None:
    """The good rows of a chunk: user, item, time, whether it is a positive, and position."""
    groups = [
        pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, (*row[:3], 1.0, *row[3:]), strict=True)) for row in rows],
            schema=SCHEMA,
        )
        for rows in blocks
    ]
    write_groups(checked_file(folder, table, chunk), groups, schema=SCHEMA)


def settle(folder: Path, chunks: dict[str, int], **more: Any) -> SettleBlock:
    pair = ("user_id", "item_row")
    reasons = dict.fromkeys(chunks, 4)
    return SettleBlock(
        chunks=chunks, reasons=reasons, pair=pair, folder=folder, **{"random": None} | more
    )


def positions(folder: Path, table: str, block: int) -> list[int]:
    found: list[int] = pq.read_table(settled_file(folder, table, block))["position"].to_pylist()
    return found


def test_rows_of_a_user_are_settled_over_all_chunks(tmp_path: Path) -> None:
    one: list[Row] = [("a", 1, 5.0, True, 0), ("b", 1, 5.0, False, 1), ("a", 2, 3.0, True, 2)]
    two: list[Row] = [("a", 1, 5.0, True, 3), ("a", 1, 4.0, True, 5), ("b", 1, 6.0, True, 6)]
    write(tmp_path, "interactions", 0, [], one)
    write(tmp_path, "interactions", 1, [("z", 1, 1.0, True, 4)], two)
    outcome = settle(tmp_path, {"interactions": 2})(1)
    assert outcome["rows"] == 6
    assert outcome["counts"]["interactions"] == {
        "kept": 3,
        "not_positive": 1,
        "merged": 1,
        "in_training": 0,
    }
    assert outcome["extremes"] == {"user_id": ["a", "b"], "item_row": [1, 2]}
    assert positions(tmp_path, "interactions", 1) == [2, 5, 6]
    faults = pq.read_table(faults_file(tmp_path, "interactions", "settled", 1)).to_pylist()
    assert faults == [{"position": 3, "reason": 4}]
    assert not settled_file(tmp_path, "interactions", 0).exists()


def test_test_rows_that_are_in_training_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "interactions", 0, [("a", 1, 5.0, True, 0), ("b", 2, 5.0, True, 1)])
    rows: list[Row] = [("a", 1, 9.0, True, 0), ("b", 1, 9.0, True, 1), ("c", 2, 8.0, True, 2)]
    write(tmp_path, "test", 0, rows)
    outcome = settle(tmp_path, {"interactions": 1, "test": 1})(0)
    assert outcome["counts"]["test"]["in_training"] == 1
    assert positions(tmp_path, "test", 0) == [2, 1]
    settled = pq.read_table(settled_file(tmp_path, "test", 0))
    assert settled["user_id"].to_pylist() == ["c", "b"]
    assert settled.schema.field("item_row").type == pa.int32()


def test_a_block_without_rows_has_no_extremes(tmp_path: Path) -> None:
    write(tmp_path, "interactions", 0, [])
    outcome = settle(tmp_path, {"interactions": 1})(0)
    assert outcome["extremes"] == {"user_id": None, "item_row": None}
    assert positions(tmp_path, "interactions", 0) == []


def test_the_rows_with_the_least_draws_are_held_out(tmp_path: Path) -> None:
    schema = SCHEMA.append(pa.field("draw", pa.uint64()))
    rows = [
        dict(zip(schema.names, ("a", item, 0.0, 1.0, True, item, 2**64 - 1 - item), strict=True))
        for item in range(4)
    ]
    group = pa.Table.from_pylist(rows, schema=schema)
    write_groups(checked_file(tmp_path, "interactions", 0), [group], schema=schema)
    fractions = Fractions(test=0.25, validation=1 / 3)
    settle(tmp_path, {"interactions": 1}, random=fractions)(0)
    settled = pq.read_table(settled_file(tmp_path, "interactions", 0))
    assert settled["part"].to_pylist() == [0, 0, 1, 2]
    assert "draw" not in settled.column_names
