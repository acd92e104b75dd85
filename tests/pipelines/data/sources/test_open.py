from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Rows, Source
from pipelines.table_config import FileFormat
from towers.errors import DataError


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def opened(path: Path | str, **table: Any) -> Source:
    return open_source(FileFormat(path=str(path), **table), name="items")


def whole(source: Source) -> Rows:
    return source.read(0, source.n_rows)


def places(rows: Rows) -> list[tuple[str, int]]:
    return [(Path(file).name, row) for file, row in rows.locate(np.arange(len(rows.frame)))]


def test_csv_is_text_without_types(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n007,x\n\n8\n9,z\n")
    source = opened(path)
    assert not source.typed
    assert whole(source).frame.to_dict("list") == {"a": ["007", "9"], "b": ["x", "z"]}
    assert places(whole(source)) == [("t.csv", 2), ("t.csv", 5)]
    assert [(line.file, line.row) for line in source.malformed] == [(path, 4)]
    assert source.empty_lines == 1


def test_parquet_keeps_types_and_never_narrows_integers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    big = 2**60 + 1
    pq.write_table(
        pa.table(
            {"id": [1, None, big], "name": ["007", "", None], "tags": [[big, None], [], None]}
        ),
        path,
    )
    source = opened(path)
    frame = whole(source).frame
    assert source.typed
    assert frame["id"].tolist() == [1, None, big]
    assert frame["name"].tolist() == ["007", "", None]
    assert list(frame["tags"][0]) == [big, None]
    assert places(whole(source)) == [("t.parquet", 1), ("t.parquet", 2), ("t.parquet", 3)]


def test_parquet_columns_are_those_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    frame = pd.DataFrame({"age": [1]}, index=pd.Index(["u"], name="user_id"))
    frame.to_parquet(folder / "t.parquet")
    assert set(opened(folder / "t.parquet").columns) == {"age", "user_id"}


def test_a_folder_gives_its_files_in_order_of_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [3], "b": ["z"]}), tmp_path / "part-1.parquet")
    pq.write_table(pa.table({"b": ["x", "y"], "a": [1, 2]}), tmp_path / "part-0.parquet")
    rows = whole(opened(tmp_path))
    assert rows.frame["a"].tolist() == [1, 2, 3]
    assert rows.frame["b"].tolist() == ["x", "y", "z"]
    assert places(rows) == [("part-0.parquet", 1), ("part-0.parquet", 2), ("part-1.parquet", 1)]


def test_csv_shards_have_a_header_each_and_may_be_compressed(tmp_path: Path) -> None:
    write(tmp_path / "0.csv", "a,b\n1,2\n3\n")
    with pa.output_stream(str(tmp_path / "1.csv.gz"), compression="detect") as stream:
        stream.write(b"b,a\n6,5\n")
    source = opened(tmp_path)
    assert whole(source).frame["a"].tolist() == ["1", "5"]
    assert places(whole(source)) == [("0.csv", 2), ("1.csv.gz", 2)]
    assert [(Path(line.file).name, line.row) for line in source.malformed] == [("0.csv", 3)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folders_that_name_columns_give_them(tmp_path: Path, kind: str) -> None:
    for day, city in (("1", "Oslo"), ("12", "Rome")):
        path = tmp_path / f"day={day}" / f"city={city}" / f"t.{kind}"
        write(path, "a\n5\n6\n")
        if kind == "parquet":
            pq.write_table(pa.table({"a": [5, 6]}), path)
    frame = whole(opened(tmp_path)).frame
    assert list(frame) == ["a", "day", "city"]
    days = frame["day"].tolist()
    assert days == ([1, 1, 12, 12] if kind == "parquet" else ["1", "1", "12", "12"])
    assert frame["city"].tolist() == ["Oslo", "Oslo", "Rome", "Rome"]


def test_types_that_differ_between_shards_are_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [35.0]}), tmp_path / "1.parquet")
    [_, note] = opened(tmp_path).notes
    assert note == (
        f"column 'a' is int64 in {tmp_path}/0.parquet and double in {tmp_path}/1.parquet; it is "
        "read as double"
    )
    pq.write_table(pa.table({"a": [2**60 + 1]}), tmp_path / "0.parquet")
    with pytest.raises(DataError, match="differ in type"):
        whole(opened(tmp_path))  # rather than narrow the integer


def test_rows_over_several_lines_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'a,b\n1,"x\ny"\n2,"stray\n3,z\n4,w"\n')
    [note] = opened(path).notes
    assert note.startswith("2 row(s) span several lines")
    assert f"the longest is {path}:4, over 3 lines" in note
    assert 'set quote = ""' in note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "Empty CSV"),
        ("twice.csv", b"a,b,a\n1,2,3\n", r"each column once.*\['a'\]"),
        ("latin.csv", "a\né\n".encode("latin-1"), "line 2 is not text in utf-8.*encoding"),
        ("broken.parquet", b"nonsense", "broken.parquet.*expected a Parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / name)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_shards_with_other_columns_are_refused(tmp_path: Path, kind: str) -> None:
    for number, column in enumerate("ab"):
        path = tmp_path / f"{number}.{kind}"
        write(path, f"{column}\n1\n")
        if kind == "parquet":
            pq.write_table(pa.table({column: [1]}), path)
    with pytest.raises(DataError, match=r"same columns.*\['a'\].*\['b'\]"):
        opened(tmp_path)


def test_shards_whose_types_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match="differ in type"):
        opened(tmp_path)
