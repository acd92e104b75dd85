from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import data
from benchmarks.data import prepare_gowalla, read_pairs
from towers.errors import DataError

TRAIN, TEST = "0 5 6\n1 5\n2 \n", "0 7\n\n1 6 8\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "gowalla"
    folder.mkdir()
    texts = {"train.txt": TRAIN, "test.txt": TEST}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    monkeypatch.setattr(data, "SHA256", digests)
    return folder


def test_a_line_is_a_user_and_its_items() -> None:
    pairs = read_pairs(TRAIN)
    assert pairs.to_dict("list") == {"user_id": [0, 0, 1], "item_id": [5, 6, 5]}
    assert list(pairs.dtypes) == ["int64", "int64"]


def test_the_tables_are_written_once(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "build" / "gowalla"
    assert prepare_gowalla(source, out) == out
    assert len(pd.read_parquet(out / "interactions.parquet")) == 3
    assert pd.read_parquet(out / "test.parquet")["item_id"].tolist() == [7, 6, 8]
    for path in source.iterdir():
        path.unlink()
    assert prepare_gowalla(source, out) == out
    assert [path.name for path in out.parent.iterdir()] == ["gowalla"]


def test_another_file_is_refused_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    (source / "test.txt").write_text("0 9\n", encoding="ascii")
    with pytest.raises(DataError, match=r"test\.txt: expected the file with SHA-256"):
        prepare_gowalla(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_fetched(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "URL", source.as_uri())
    out = prepare_gowalla(tmp_path / "empty", tmp_path / "out")
    assert len(pd.read_parquet(out / "interactions.parquet")) == 3


def test_a_place_that_cannot_be_reached_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "URL", (tmp_path / "nowhere").as_uri())
    with pytest.raises(DataError, match=r"train\.txt: no such file, and file:.* cannot be reached"):
        prepare_gowalla(tmp_path / "empty", tmp_path / "out")
