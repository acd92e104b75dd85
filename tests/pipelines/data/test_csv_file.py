from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import FileFormat
from pipelines.data.csv_file import CsvFile, read_csv
from towers.errors import ConfigError, DataError

FIELDS = st.text(alphabet='ab ,"\n', max_size=4)
ROWS = st.lists(st.tuples(FIELDS, FIELDS).filter(any), max_size=8)


def read(path: Path, content: str, *, encoding: str = "utf-8", **source: Any) -> CsvFile:
    path.write_bytes(content.encode(encoding))
    return read_csv(path, FileFormat(path=str(path), encoding=encoding, **source))


def malformed(file: CsvFile) -> list[tuple[int, str]]:
    return [(line.row, line.text) for line in file.malformed]


@given(rows=ROWS)
def test_rows_are_those_that_were_written_each_with_its_line(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    lines = []
    with path.open("w", newline="") as opened:
        writer = csv.writer(opened, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["a", "b"])
        for row in rows:
            opened.flush()
            lines.append(path.read_text().count("\n") + 1)
            writer.writerow(row)
    file = read_csv(path, FileFormat())
    assert [(row["a"], row["b"]) for row in file.table.to_pylist()] == rows
    assert list(file.rows) == lines


def test_values_are_text_as_it_stands(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b,c\n007,NA,\nnull,1.50,nan\n")
    assert file.table.to_pydict() == {"a": ["007", "null"], "b": ["NA", "1.50"], "c": ["", "nan"]}
    assert file.rows == range(2, 4)


def test_lines_with_a_wrong_number_of_fields_are_kept_apart(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", 'a,b\n1,2\n3\n"4\n5",6\n7,8,9\n10,11\n"12\n13"\n14,15\n')
    assert file.table["a"].to_pylist() == ["1", "4\n5", "10", "14"]
    assert list(file.rows) == [2, 4, 7, 10]
    assert malformed(file) == [(3, "3"), (6, "7,8,9"), (8, '"12\n13"')]


def test_a_quotation_mark_that_never_closes_is_a_malformed_line(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", 'a,b\n1,2\n"3,4\n5,6\n')
    assert file.table["a"].to_pylist() == ["1"]
    assert malformed(file) == [(3, '"3,4\n5,6')]


def test_empty_lines_are_counted_and_no_rows(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b\r\n1,2\r\n\r\n,\r\n3,4\r\n\r\n")
    assert file.table["a"].to_pylist() == ["1", "3"]
    assert list(file.rows) == [2, 5]
    assert file.empty_lines == 3


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b\n")
    assert file.table.to_pydict() == {"a": [], "b": []}
    assert len(file.rows) == 0


def test_columns_can_be_named_where_there_is_no_header(tmp_path: Path) -> None:
    file = read(tmp_path / "u.dat", "1\t2\n3\n5\t6\n", separator="\t", columns=("a", "b"))
    assert file.table.to_pydict() == {"a": ["1", "5"], "b": ["2", "6"]}
    assert list(file.rows) == [1, 3]
    assert malformed(file) == [(2, "3")]


@pytest.mark.parametrize("separator", ["::", "§"])
def test_with_a_long_separator_quotation_marks_have_no_meaning(
    tmp_path: Path, separator: str
) -> None:
    content = separator.join(["1", '"Great" Cats']) + "\n" + separator.join(["3", "é", "4"]) + "\n"
    file = read(
        tmp_path / "movies.dat",
        content,
        separator=separator,
        encoding="latin-1",
        columns=("item_id", "title"),
    )
    assert file.table["title"].to_pylist() == ['"Great" Cats']
    assert malformed(file) == [(2, separator.join(["3", "é", "4"]))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("separator", [",", "::"])
def test_any_encoding_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    content = separator.join(["title", "year"]) + "\n" + separator.join(["Misérables", "1995"])
    file = read(tmp_path / "t.csv", content, encoding=encoding, separator=separator)
    assert file.table.to_pydict() == {"title": ["Misérables"], "year": ["1995"]}


def test_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a::b\n1\x1f::2\n")
    with pytest.raises(ConfigError, match=r"encoding.*'utf-99'"):
        read_csv(path, FileFormat(encoding="utf-99"))
    with pytest.raises(ConfigError, match="separator of at least one character"):
        read_csv(path, FileFormat(separator=""))
    with pytest.raises(DataError, match=r"U\+001F"):
        read_csv(path, FileFormat(separator="::"))
