from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.data.faults.rejects import Faults, Rejects, settle_rejects
from pipelines.data.sources import source as source_module
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.table_config import FileFormat
from towers.errors import DataError


def mask(*positions: int, size: int = 4) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(size), positions)


def rejects() -> Rejects:
    found = Rejects(4)
    found.add(mask(2), "null id", columns=["id"])
    found.add(mask(0, 2), "unparsable age", columns=["age", "id"])
    found.add(mask(), "duplicate id", columns=["id"])
    return found


@pytest.fixture
def faults() -> Faults:
    frame = pd.DataFrame({"id": [1, 2, None, 4], "age": ["x" * 200, "5", "?", "7"]})
    return Faults.of(FrameSource.of(frame, name="users"), rejects())


def clean(name: str) -> Faults:
    source = FrameSource.of(pd.DataFrame({"id": [1]}), name=name)
    return Faults.of(source, Rejects(1))


def test_a_row_keeps_its_first_reason(faults: Faults) -> None:
    assert rejects().good.tolist() == [False, True, False, True]
    assert faults.counts() == {"null id": 1, "unparsable age": 1}


def test_rows_are_shown_in_order_with_their_values(faults: Faults) -> None:
    shown = faults.first(2)
    assert shown[0].startswith("users.iloc:0: unparsable age: 'xxx")
    assert shown[0].endswith("x...")
    assert shown[1] == "users.iloc:2: null id: nan"
    assert faults.first(1) == shown[:1]


def test_rejected_rows_are_given_as_they_were_read(faults: Faults) -> None:
    [rows] = faults.frames()
    assert list(rows) == ["id", "age", "file", "row", "reason"]
    assert rows["age"].tolist() == ["x" * 200, "?"]
    assert rows["row"].tolist() == [0, 2]
    assert rows["reason"].tolist() == ["unparsable age", "null id"]


def test_malformed_lines_are_rejected_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("file,age\n1,2\n3\n4,5\n6,7,8\n")
    rejected = Rejects(2)
    rejected.add(mask(0, 1, size=2), "null id", columns=["file"])
    found = Faults.of(open_source(FileFormat(path=str(path)), name="users"), rejected)
    assert found.counts() == {"wrong number of fields": 2, "null id": 2}
    assert [line.removeprefix(str(path)) for line in found.first(3)] == [
        ":2: null id: '1'",
        ":3: wrong number of fields: '3'",
        ":4: null id: '4'",
    ]
    broken, rows = found.frames()
    for frame in (broken, rows):
        assert list(frame) == ["file", "age", "file", "row", "reason"]  # its own `file` stays
    assert [*broken.iloc[:, 0], *rows.iloc[:, 0]] == ["3", "6,7,8", "1", "4"]
    assert [*broken["row"], *rows["row"]] == [3, 5, 2, 4]


def test_fail_counts_and_shows_the_rows_and_names_the_remedy(faults: Faults) -> None:
    with pytest.raises(DataError) as raised:
        settle_rejects([faults], on_bad_rows="fail", quarantine_dir=None)
    message = str(raised.value)
    assert "2 row(s) at fault" in message
    assert "users: 1 x null id" in message
    assert "users.iloc:2: null id: nan" in message
    assert 'on_bad_rows = "quarantine"' in message


def test_fail_shows_few_rows_of_many() -> None:
    rejected = Rejects(100)
    rejected.add(np.ones(100, dtype=bool), "null id", columns=["id"])
    source = FrameSource.of(pd.DataFrame({"id": range(100)}), name="items")
    found = Faults.of(source, rejected)
    with pytest.raises(DataError) as raised:
        settle_rejects([found], on_bad_rows="fail", quarantine_dir=None)
    assert str(raised.value).count("items.iloc:") == 5
    assert "items: 100 x null id" in str(raised.value)


def test_quarantine_writes_each_table_that_has_rejects(faults: Faults, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "rejects"
    files = settle_rejects(
        [faults, clean("items")], on_bad_rows="quarantine", quarantine_dir=folder
    )
    assert files == {"users": folder / "users.csv"}
    assert [path.name for path in folder.iterdir()] == ["users.csv"]
    written = pd.read_csv(folder / "users.csv")
    assert written["reason"].tolist() == ["unparsable age", "null id"]
    assert written["file"].tolist() == ["users.iloc", "users.iloc"]


def test_quarantine_without_a_folder_writes_nothing(faults: Faults) -> None:
    assert settle_rejects([faults], on_bad_rows="quarantine", quarantine_dir=None) == {}


def test_nothing_is_settled_where_no_row_is_rejected(tmp_path: Path) -> None:
    assert settle_rejects([clean("items")], on_bad_rows="fail", quarantine_dir=tmp_path / "q") == {}
    assert not (tmp_path / "q").exists()


def test_rows_far_apart_are_read_a_stretch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "ROWS_AT_A_TIME", 3)
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"x": range(10), "y": list("abcdefghij")}).to_parquet(path)
    found = Faults(
        source=open_source(FileFormat(path=str(path)), name="test"),
        reasons=[("null x", ("x",)), ("unparsable x", ("x",)), ("null x", ("x", "y"))],
        positions=np.array([1, 6, 7, 8, 9]),
        codes=np.array([2, 0, 2, 1, 2], dtype=np.int16),
    )
    assert found.counts() == {"null x": 4, "unparsable x": 1}
    assert found.first(3) == [
        f"{path}:2: null x: 1, 'b'",
        f"{path}:7: null x: 6",
        f"{path}:8: null x: 7, 'h'",
    ]
    assert len(found.first(9)) == 5
    frames = list(found.frames())
    assert [frame["x"].tolist() for frame in frames] == [[1], [6, 7, 8], [9]]
    assert [frame["row"].tolist() for frame in frames] == [[2], [7, 8, 9], [10]]
    assert frames[1]["reason"].tolist() == ["null x", "null x", "unparsable x"]
