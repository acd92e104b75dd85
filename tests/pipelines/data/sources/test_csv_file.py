from __future__ import annotations

import csv
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.sources import csv_file
from pipelines.data.sources.csv_file import LINE, CsvFile
from pipelines.table_config import FileFormat
from towers.errors import ConfigError, DataError

FIELDS = st.text(alphabet='ab ,"\n', max_size=4)
ROWS = st.lists(st.tuples(FIELDS, FIELDS).filter(any), max_size=8)


@dataclass(frozen=True)
class Read:
    """A file that was read whole."""

    file: CsvFile
    table: dict[str, list[Any]]
    lines: list[int]

    @classmethod
    def of(cls, path: Path, **source: Any) -> Read:
        file = CsvFile(path, FileFormat(path=str(path), **source))
        table = pa.concat_tables(file.batches())
        assert table.num_rows == file.n_rows
        return cls(file, table.drop_columns(LINE).to_pydict(), table[LINE].to_pylist())


def read(path: Path, content: str, *, encoding: str = "utf-8", **source: Any) -> Read:
    path.write_bytes(content.encode(encoding))
    return Read.of(path, encoding=encoding, **source)


def malformed(read: Read) -> list[tuple[int, str]]:
    return [(line.row, line.text) for line in read.file.malformed]


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
    is_header = [row == ("a", "b") for row in rows]
    kept = [(row, line) for row, line, is_ in zip(rows, lines, is_header, strict=True) if not is_]
    file = Read.of(path)
    assert list(zip(file.table["a"], file.table["b"], strict=True)) == [row for row, _ in kept]
    assert file.lines == [line for _, line in kept]
    assert len(file.file.malformed) == sum(is_header)
    assert file.file.spanning == sum("\n" in "".join(row) for row in rows)


def test_values_are_text_as_it_stands(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b,c\n007,NA,\nnull,1.50,nan\n")
    assert file.table == {"a": ["007", "null"], "b": ["NA", "1.50"], "c": ["", "nan"]}
    assert file.lines == [2, 3]


def test_lines_with_a_wrong_number_of_fields_are_kept_apart(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", 'a,b\n1,2\n3\n"4\n5",6\n7,8,9\n10,11\n"12\n13"\n14,15\n')
    assert file.table["a"] == ["1", "4\n5", "10", "14"]
    assert file.lines == [2, 4, 7, 10]
    assert malformed(file) == [(3, "3"), (6, "7,8,9"), (8, '"12\n13"')]


def test_a_quotation_mark_that_never_closes_is_a_malformed_line(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", 'a,b\n1,2\n"3,4\n5,6\n')
    assert file.table["a"] == ["1"]
    assert malformed(file) == [(3, '"3,4\n5,6')]


def test_empty_lines_are_counted_and_no_rows(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b\r\n1,2\r\n\r\n,\r\n3,4\r\n\r\n")
    assert file.table["a"] == ["1", "3"]
    assert file.lines == [2, 5]
    assert file.file.empty_lines == 3


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b\n")
    assert file.table == {"a": [], "b": []}
    assert file.lines == []


def test_columns_can_be_named_where_there_is_no_header(tmp_path: Path) -> None:
    file = read(tmp_path / "u.dat", "1\t2\n3\n5\t6\n", separator="\t", columns=("a", "b"))
    assert file.table == {"a": ["1", "5"], "b": ["2", "6"]}
    assert file.lines == [1, 3]
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
    assert file.table["title"] == ['"Great" Cats']
    assert malformed(file) == [(2, separator.join(["3", "é", "4"]))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("separator", [",", "::"])
def test_any_encoding_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    content = separator.join(["title", "year"]) + "\n" + separator.join(["Misérables", "1995"])
    file = read(tmp_path / "t.csv", content, encoding=encoding, separator=separator)
    assert file.table == {"title": ["Misérables"], "year": ["1995"]}


def test_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a::b\n1\x1f::2\n")
    with pytest.raises(ConfigError, match=r"encoding.*'utf-99'"):
        Read.of(path, encoding="utf-99")
    with pytest.raises(ConfigError, match="separator of at least one character"):
        Read.of(path, separator="")
    with pytest.raises(DataError, match=r"U\+001F"):
        Read.of(path, separator="::")
    with pytest.raises(ConfigError, match="quote of one character"):
        Read.of(path, quote="``")


@pytest.mark.parametrize("separator", [",", "::"])
def test_lines_are_numbered_through_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 64)
    content = "a,b\n" + "".join(f"row {x},1\n{x}\n\n{x},2\n" for x in range(50))
    file = read(tmp_path / "t.csv", content.replace(",", separator), separator=separator)
    assert file.lines == sorted([2 + 4 * x for x in range(50)] + [5 + 4 * x for x in range(50)])
    assert malformed(file) == [(3 + 4 * x, str(x)) for x in range(50)]
    assert file.file.empty_lines == 50


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a long name,another one\n1,2\n", ("a long name", "another one")),
        ('a,b\n"x\ny\nz",2\n', ("a", "b")),
        ("é,b\né,é\n", ("é", "b")),
    ],
    ids=["longer than the head", "the head ends within quotes", "the head ends within a letter"],
)
def test_the_header_is_found_in_the_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, columns: tuple[str, ...]
) -> None:
    monkeypatch.setattr(csv_file, "HEAD_BYTES", 8)
    file = read(tmp_path / "t.csv", content)
    assert file.file.columns == columns
    assert file.file.n_rows == 1


def test_rows_over_several_lines_are_counted_and_the_longest_is_known(tmp_path: Path) -> None:
    content = 'a,b\n1,"x\ny"\n2,"stray\n3,z\n4,w"\n5,v\n"6\n7"\n8,u\n'
    file = read(tmp_path / "t.csv", content)
    assert file.lines == [2, 4, 7, 10]
    assert malformed(file) == [(8, '"6\n7"')]
    assert file.file.spanning == 3
    assert file.file.longest == (4, 3)


def test_without_a_quote_every_line_is_a_row(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", 'a,b\n1,"x\n2,y"\n', quote="")
    assert file.table == {"a": ["1", "2"], "b": ['"x', 'y"']}
    assert file.file.spanning == 0
    assert read(tmp_path / "t.csv", "a,b\n'1,2',3\n", quote="'").table["a"] == ["1,2"]


def test_a_header_in_the_middle_is_no_row(tmp_path: Path) -> None:
    file = read(tmp_path / "t.csv", "a,b\n1,2\na,b\n3,a\n")
    assert file.lines == [2, 4]
    [line] = file.file.malformed
    assert (line.row, line.text, line.reason) == (3, "a,b", "repeats the header line")
    named = read(tmp_path / "t.csv", "a,b\n1,2\n", columns=("a", "b"))
    assert named.lines == [1, 2]  # a file that has no header repeats none


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst", ".lz4"])
@pytest.mark.parametrize("separator", [",", "::"])
def test_compressed_files_are_read_by_their_suffix(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    path = tmp_path / f"t.csv{suffix}"
    with pa.output_stream(str(path), compression="detect") as stream:
        stream.write(f"a{separator}b\n1{separator}2\n".encode())
    assert Read.of(path, separator=separator).table == {"a": ["1"], "b": ["2"]}


def test_a_row_that_never_ends_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 64)
    with pytest.raises(DataError, match=r'a row is longer.*quote = ""'):
        read(tmp_path / "t.csv", 'a,b\n1,"x\n' + "2,y\n" * 100)


def test_a_file_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "MOST_MALFORMED", 10)
    with pytest.raises(DataError, match=r"2 fields a line.*such as line 2: '1,2,3'.*separator"):
        read(tmp_path / "t.csv", "a,b\n" + "1,2,3\n" * 11)


def test_a_backslash_before_a_quotation_mark_is_read_where_that_is_said(tmp_path: Path) -> None:
    text = 'a;b\n"x \\"y\\"; z";"1"\n"u";"2"\n'
    found = read(tmp_path / "t.csv", text, separator=";", escape="\\")
    assert found.table == {"a": ['x "y"; z', "u"], "b": ["1", "2"]}
    assert found.lines == [2, 3]
    assert malformed(read(tmp_path / "t.csv", text, separator=";"))
    with pytest.raises(ConfigError, match="escape of one character"):
        read(tmp_path / "t.csv", text, escape="\\\\")


def test_xz_is_read_and_refused_where_it_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.xz"
    path.write_bytes(lzma.compress(b"a,b\n" + b"1,2\n" * 1000))
    assert Read.of(path).file.n_rows == 1000
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"t.csv.xz: cannot be read"):
        Read.of(path)
