from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.sources import parquet_files
from pipelines.data.sources.parquet_files import SourceFiles
from towers.errors import DataError


def write(folder: Path, sizes: list[int], *, row_group_size: int = 4) -> SourceFiles:
    """Shards with the numbers from 0 on."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for number, size in enumerate(sizes):
        ids = pa.array(range(start, start + size), pa.int64())
        table = pa.table({"more": [str(x) for x in ids.to_pylist()], "user_id": ids})
        path = folder / f"{number:02d}.parquet"
        pq.write_table(table, path, row_group_size=row_group_size)
        start += size
    return SourceFiles.open(folder, name="users")


@given(
    sizes=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    cut=st.lists(st.integers(0, 7), max_size=9),
    start=st.integers(0, 12),
)
def test_batches_of_any_sizes_come_in_order_from_any_row(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cut: list[int], start: int
) -> None:
    files = write(tmp_path_factory.mktemp("users"), sizes)
    assert files.n_rows == sum(sizes)
    numbers = list(range(start, files.n_rows))
    while sum(cut) > len(numbers):
        cut.pop()
    batches = list(files.batches(start, columns=["user_id"], sizes=cut))
    assert [batch.num_rows for batch in batches] == cut
    assert all(batch.column_names == ["user_id"] for batch in batches)
    found = [number for batch in batches for number in batch["user_id"].to_pylist()]
    assert found == numbers[: sum(cut)]


def test_a_large_row_group_is_decoded_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "LARGEST_PIECE", 10)
    files = write(tmp_path, [95], row_group_size=1000)
    pieces = [piece.num_rows for piece in files._pieces(12, ["user_id"])]
    assert (sum(pieces), max(pieces)) == (83, 10)


def test_one_file_is_a_table_and_what_is_hidden_is_none(tmp_path: Path) -> None:
    write(tmp_path, [3, 2])
    (tmp_path / ".tmp.parquet").write_text("")
    (tmp_path / "_metadata.parquet").write_text("")
    assert SourceFiles.open(tmp_path, name="users").counts == (3, 2)
    assert SourceFiles.open(tmp_path / "01.parquet", name="users").counts == (2,)


def test_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    before = write(tmp_path, [3, 2]).fingerprint()
    assert [file["name"] for file in before] == ["00.parquet", "01.parquet"]
    assert write(tmp_path, [3, 2]).fingerprint() == before
    assert write(tmp_path, [3, 3]).fingerprint()[:1] == before[:1]
    assert write(tmp_path, [3, 3]).fingerprint() != before


def test_shards_whose_types_can_be_one_are_joined(tmp_path: Path) -> None:
    columns: list[Any] = [pa.array([1, 2]), pa.array([3], pa.int32()), pa.nulls(1)]
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"user_id": column}), tmp_path / f"{number}.parquet")
    files = SourceFiles.open(tmp_path, name="users")
    (batch,) = files.batches(0, columns=["user_id"], sizes=[4])
    assert batch["user_id"].to_pylist() == [1, 2, 3, None]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    def fails(message: str, path: Path = tmp_path) -> None:
        with pytest.raises(DataError, match=message):
            files = SourceFiles.open(path, name="users")
            list(files.batches(0, columns=["user_id"], sizes=[files.n_rows]))

    fails("no such file or folder", tmp_path / "nothing")
    fails(r"expected \*.parquet, \*.csv or \*.jsonl files in the folder")
    (tmp_path / "users.csv").write_text("user_id\n1\n")
    fails("users.csv: expected a Parquet file", tmp_path / "users.csv")
    (tmp_path / "users.csv").unlink()
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "1.parquet")
    fails("differ in type")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "1.parquet")
    fails("expected the same columns in every shard")
    content = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "1.parquet").write_bytes(content[:4] + b"\xff" * 20 + content[24:])
    fails("1.parquet: expected a Parquet file")
