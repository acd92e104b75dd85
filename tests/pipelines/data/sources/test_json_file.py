"""JSON lines: which columns there are, of which types, and where their rows stand."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.data.sources import files
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Source
from pipelines.table_config import FileFormat
from towers.errors import ConfigError, DataError

LINES = (
    '{"user": "u1", "age": 28, "tags": ["a", "b"], "rating": "10"}\n'
    "\n"
    '{"user": "u2", "age": 28.5, "tags": "c", "rating": 9}\n'
    "no json\n"
    '{"user": "u3", "size": {"eu": 38}, "rating": null, "tags": [1]}'
)


def write(folder: Path, text: str = LINES, *, name: str = "t.jsonl") -> Path:
    compress: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(compress.get(path.suffix, bytes)(text.encode()))
    return path


def opened(path: Path, stage: Path | None = None, **table: Any) -> Source:
    return open_source(FileFormat(path=str(path), **table), name="items", stage=stage)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json.gz", "t.json.bz2", "t.ndjson.xz"])
def test_columns_have_the_type_that_holds_all_their_values(tmp_path: Path, name: str) -> None:
    source = opened(write(tmp_path, name=name))
    rows = source.read(0, 3)
    assert source.columns == ("user", "age", "tags", "rating", "size.eu")
    assert source.typed
    assert rows.frame["age"].tolist()[:2] == [28.0, 28.5]
    assert [list(tags) for tags in rows.frame["tags"]] == [["a", "b"], ["c"], ["1"]]
    assert rows.frame["rating"].tolist() == ["10", "9", None]
    assert rows.frame["size.eu"].tolist() == [None, None, 38]


def test_lines_that_are_no_objects_are_kept_apart_with_their_number(tmp_path: Path) -> None:
    source = opened(write(tmp_path))
    (line,) = source.malformed
    assert (line.row, line.text, line.reason) == (4, "no json", "no JSON object")
    assert (source.n_rows, source.empty_lines) == (3, 1)
    path = str(tmp_path / "t.jsonl")
    assert source.read(1, 3).locate(range_of(2)) == [(path, 3), (path, 5)]


def range_of(n: int) -> Any:
    return np.arange(n)


def test_large_files_stay_on_disk_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = opened(write(tmp_path)).read(0, 3)
    monkeypatch.setattr(files, "LARGE_BYTES", 1)
    staged = opened(tmp_path / "t.jsonl", stage=tmp_path / "stage").read(0, 3)
    assert list((tmp_path / "stage").rglob("*.parquet"))
    assert staged.frame.map(str).equals(held.frame.map(str))
    assert staged.locate(range_of(3)) == held.locate(range_of(3))


def test_files_of_a_folder_may_have_different_keys_and_types(tmp_path: Path) -> None:
    write(tmp_path, '{"a": 1}\n', name="t/day=1/x.jsonl")
    write(tmp_path, '{"b": true, "a": "x"}\n', name="t/day=2/y.json.gz")
    frame = opened(tmp_path / "t").read(0, 2).frame
    assert frame["a"].tolist() == ["1", "x"]
    assert frame["day"].tolist() == ["1", "2"]
    assert frame["b"].tolist() == [None, True]


@pytest.mark.parametrize("large", [2**63, 10**20])
def test_integers_of_more_than_64_bits_are_floats(tmp_path: Path, large: int) -> None:
    path = write(tmp_path, f'{{"n": 1}}\n{{"n": {large}}}\n')
    assert opened(path).read(0, 2).frame["n"].tolist() == [1.0, float(large)]


def test_an_array_of_objects_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([{"a": 1}, {"a": 2}], indent=1), name="t.json")
    with pytest.raises(DataError, match=r"one JSON object a line.*line 1.*jq -c"):
        opened(path)


def test_damaged_files_and_unknown_encodings_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, name="t.jsonl.xz")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read"):
        opened(path)
    with pytest.raises(ConfigError, match="encoding that Python knows"):
        opened(write(tmp_path), encoding="nonsense")


def test_lines_in_another_encoding_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"name": "Łódź"}\n'.encode("utf-16"))
    assert opened(path, encoding="utf-16").read(0, 1).frame["name"].tolist() == ["Łódź"]


def test_objects_within_objects_are_columns_unless_they_are_maps(tmp_path: Path) -> None:
    votes = ", ".join(f'"u{k}": 1' for k in range(300))
    path = write(
        tmp_path,
        '{"user": {"id": 1, "home": {"city": "x"}}, "mixed": {"a": 1}, "none": {}}\n'
        f'{{"user": {{"id": 2}}, "mixed": "text", "votes": {{{votes}}}}}\n'
        '{"user": null, "list": [{"a": 1}, 2]}\n',
    )
    source = opened(path)
    assert source.columns == ("user.id", "user.home.city", "mixed", "none", "votes", "list")
    frame = source.read(0, 3).frame
    assert frame["user.id"].tolist() == [1, 2, None]
    assert frame["user.home.city"].tolist() == ["x", None, None]
    assert frame["mixed"].tolist() == ['{"a": 1}', "text", None]
    assert json.loads(frame["votes"][1])["u7"] == 1
    assert list(frame["list"][2]) == ['{"a": 1}', "2"]


def test_a_map_in_one_file_is_one_in_all(tmp_path: Path) -> None:
    write(tmp_path, '{"a": {"b": 1}}\n', name="t/x.jsonl")
    write(tmp_path, '{"a": "c"}\n', name="t/y.jsonl")
    assert opened(tmp_path / "t").read(0, 2).frame["a"].tolist() == ['{"b": 1}', "c"]
