from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.data.sources.files import table_files
from towers.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(folder: Path) -> list[str]:
    files = table_files(folder, name="items").files
    return [str(file.path.relative_to(folder)) for file in files]


def test_a_folder_is_read_whole_in_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "b.csv", "a.csv.gz", "deep/er/c.TSV", "deep/d.csv.zst")
    assert names(tmp_path) == ["a.csv.gz", "b.csv", "deep/d.csv.zst", "deep/er/c.TSV"]
    assert not table_files(tmp_path, name="items").is_parquet


def test_hidden_names_are_no_part_of_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "_SUCCESS", ".a.parquet.crc", "_temporary/b.parquet", ".x/c.csv")
    assert names(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("other", ["b.parquet", "b.csv.zip", "notes.md", "deep/b.json", "b"])
def test_a_folder_of_which_a_file_would_not_be_read_is_refused(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "a.csv", other)
    with pytest.raises(DataError) as raised:
        table_files(tmp_path, name="items")
    assert "items: expected files of one kind in the folder" in str(raised.value)
    assert other in str(raised.value)
    assert "begin its name with _" in str(raised.value)


def test_the_files_that_would_not_be_read_are_named_up_to_a_few(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", *(f"{n}.log" for n in range(5)))
    with pytest.raises(DataError, match=r"there is also 0.log, 1.log, 2.log and 2 more"):
        table_files(tmp_path, name="items")


def test_folders_name_columns(tmp_path: Path) -> None:
    touch(tmp_path, "day=1/city=S%C3%A3o%20Paulo/a.csv")
    touch(tmp_path, "day=2/city=__HIVE_DEFAULT_PARTITION__/a.csv")
    found = table_files(tmp_path, name="items")
    assert found.keys == ("day", "city")
    assert [file.keys for file in found.files] == [
        (("day", "1"), ("city", "São Paulo")),
        (("day", "2"), ("city", None)),
    ]
    touch(tmp_path, "day=3/b.csv")
    with pytest.raises(DataError, match=r"same key=value folders.*day=1.*day=3"):
        table_files(tmp_path, name="items")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="items: expected the path"):
        table_files("", name="items")
    with pytest.raises(DataError, match="no such file or folder"):
        table_files(tmp_path / "none", name="items")
    with pytest.raises(DataError, match=r"expected \*.parquet, \*.csv or.*received none"):
        table_files(tmp_path, name="items")
    with pytest.raises(DataError, match=r"expected CSV.*or Parquet, received .*t.xlsx; convert"):
        table_files(touch(tmp_path, "t.xlsx") / "t.xlsx", name="items")
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(DataError, match="is a Delta table"):
        table_files(tmp_path, name="items")


def test_a_single_file_is_parquet_by_its_suffix_and_else_csv(tmp_path: Path) -> None:
    touch(tmp_path, "day=1/t.PQ", "u.data")
    assert table_files(tmp_path / "day=1" / "t.PQ", name="items").is_parquet
    assert table_files(tmp_path / "day=1" / "t.PQ", name="items").keys == ()
    assert not table_files(tmp_path / "u.data", name="items").is_parquet
