from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.data.sources import encoding
from pipelines.data.sources.open import open_source
from pipelines.table_config import FileFormat
from towers.errors import DataError


def message(path: Path, content: bytes, **source: Any) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        open_source(FileFormat(path=str(path), **source), name="items")
    return str(raised.value)


@pytest.mark.parametrize("separator", [",", "::"])
def test_another_encoding_is_named_with_the_line_and_the_setting(
    tmp_path: Path, separator: str
) -> None:
    content = f"title{separator}year\nA{separator}1\nAmélie{separator}2001\n".encode("latin-1")
    found = message(tmp_path / "t.csv", content, separator=separator)
    assert "t.csv: cannot be read: line 3 is not text in utf-8: b'Am\\xe9lie" in found
    assert "set the table's encoding (now 'utf-8'), for example to \"latin-1\"" in found
    assert "which reads 'Amélie" in found


def test_the_line_is_found_behind_the_first_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "PIECE", 7)
    content = b"a\n" + "é\n".encode() * 20 + b"\xe9t\xe9\n"
    assert "line 22 is not text in utf-8: b'\\xe9t" in message(tmp_path / "t.csv", content)


def test_a_file_in_utf_16_is_told(tmp_path: Path) -> None:
    found = message(tmp_path / "t.csv", "a,b\n1,2\n".encode("utf-16"))
    assert (
        "it begins as utf-16 text does; set the table's encoding (now 'utf-8'), to \"utf-16\""
        in (found)
    )


def test_damaged_files_are_told_from_those_in_another_encoding(tmp_path: Path) -> None:
    assert "the file is damaged, or no text" in message(tmp_path / "t.csv", b"a\n\x00\xff\x00\n")
    whole = tmp_path / "whole.csv.gz"
    with pa.output_stream(str(whole), compression="detect") as stream:
        stream.write(bytes(range(48, 58)) * 1000)
    found = message(tmp_path / "cut.csv.gz", whole.read_bytes()[:-20])
    assert "cut.csv.gz: cannot be read" in found
    assert "check that it is whole" in found
    assert "encoding" not in found
