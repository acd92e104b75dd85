from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import FileFormat
from pipelines.data.tables import SourceTable, read_table, wrap_frame
from towers.errors import ConfigError, DataError


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def rows_of(table: SourceTable) -> list[int]:
    return [row for _, row in table.locate(np.arange(len(table.frame)))]


def test_csv_is_text_without_types(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n007,x\n\n8\n9,z\n")
    table = read_table(FileFormat(path=path), name="items")
    assert not table.typed
    assert table.frame.to_dict("list") == {"a": ["007", "9"], "b": ["x", "z"]}
    assert rows_of(table) == [2, 5]
    assert [(line.file, line.row) for line in table.malformed] == [(path, 4)]
    assert table.empty_lines == 1


def test_parquet_keeps_types_and_never_narrows_integers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    big = 2**60 + 1
    pq.write_table(
        pa.table(
            {"id": [1, None, big], "name": ["007", "", None], "tags": [[big, None], [], None]}
        ),
        path,
    )
    table = read_table(FileFormat(path=str(path)), name="items")
    assert table.typed
    assert table.frame["id"].tolist() == [1, None, big]
    assert table.frame["name"].tolist() == ["007", "", None]
    assert list(table.frame["tags"][0]) == [big, None]
    assert rows_of(table) == [1, 2, 3]


def test_parquet_columns_are_those_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    frame = pd.DataFrame({"age": [1]}, index=pd.Index(["u"], name="user_id"))
    frame.to_parquet(folder / "t.parquet")
    table = read_table(FileFormat(path=str(folder / "t.parquet")), name="users")
    assert set(table.frame) == {"age", "user_id"}


def test_a_folder_gives_its_shards_in_order_of_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [3], "b": ["z"]}), tmp_path / "part-1.parquet")
    pq.write_table(pa.table({"b": ["x", "y"], "a": [1, 2]}), tmp_path / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-0.parquet").write_text("a checksum")
    table = read_table(FileFormat(path=str(tmp_path)), name="items")
    assert table.frame["a"].tolist() == [1, 2, 3]
    assert table.frame["b"].tolist() == ["x", "y", "z"]
    places = table.locate(np.array([0, 1, 2]))
    assert [(Path(file).name, row) for file, row in places] == [
        ("part-0.parquet", 1),
        ("part-0.parquet", 2),
        ("part-1.parquet", 1),
    ]


def test_a_folder_of_csv_shards_each_with_a_header(tmp_path: Path) -> None:
    write(tmp_path / "0.csv", "a,b\n1,2\n3\n")
    write(tmp_path / "1.csv", "a,b\n5,6\n")
    table = read_table(FileFormat(path=str(tmp_path)), name="items")
    assert table.frame["a"].tolist() == ["1", "5"]
    assert [(Path(file).name, row) for file, row in table.locate(np.array([1, 0]))] == [
        ("1.csv", 2),
        ("0.csv", 2),
    ]
    assert [(Path(line.file).name, line.row) for line in table.malformed] == [("0.csv", 3)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "Empty CSV"),
        ("twice.csv", b"a,b,a\n1,2,3\n", r"each column once.*\['a'\]"),
        ("latin.csv", "a\né\n".encode("latin-1"), "Row #2.*UTF8.*encoding"),
        ("broken.parquet", b"nonsense", "broken.parquet.*cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(FileFormat(path=str(tmp_path / name)), name="items")


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.dat"
    path.write_bytes("a::b\né::1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.dat: cannot be read.*set the table's encoding"):
        read_table(FileFormat(path=str(path), separator="::"), name="items")


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="items: expected the path"):
        read_table(FileFormat(), name="items")
    with pytest.raises(DataError, match="no such file or folder"):
        read_table(FileFormat(path=str(tmp_path / "none")), name="items")
    with pytest.raises(DataError, match=r"expected \*.parquet or \*.csv.*received neither"):
        read_table(FileFormat(path=str(tmp_path)), name="items")
    write(tmp_path / "a.csv", "a\n1\n")
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match="received both kinds"):
        read_table(FileFormat(path=str(tmp_path)), name="items")


def test_shards_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": [1]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"same columns.*\['a'\].*\['b'\]"):
        read_table(FileFormat(path=str(tmp_path)), name="items")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match="differ in type"):
        read_table(FileFormat(path=str(tmp_path)), name="items")


def test_missing_columns_are_named_with_those_present(tmp_path: Path) -> None:
    table = read_table(FileFormat(path=write(tmp_path / "t.csv", "a;b\n1;2\n")), name="items")
    with pytest.raises(ConfigError, match=r"items \(.*t.csv\).*\['a', 'c'\].*it has \['a;b'\]"):
        table.require(["a", "c", "a"])


def test_a_frame_is_taken_by_position() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 7])
    table = wrap_frame(frame, name="users")
    assert table.typed
    assert table.frame.index.tolist() == [0, 1]
    assert table.locate(np.array([1])) == [("users.iloc", 1)]
    assert frame.index.tolist() == [7, 7]
    with pytest.raises(DataError, match="each column once"):
        wrap_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]), name="users")
