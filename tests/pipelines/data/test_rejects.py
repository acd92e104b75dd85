from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.config import FileFormat
from pipelines.data.rejects import Rejects, settle_rejects
from pipelines.data.tables import read_table, wrap_frame
from towers.errors import DataError


def mask(*positions: int, size: int = 4) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(size), positions)


@pytest.fixture
def rejects() -> Rejects:
    frame = pd.DataFrame({"id": [1, 2, None, 4], "age": ["x" * 200, "5", "?", "7"]})
    found = Rejects(wrap_frame(frame, name="users"))
    found.add(mask(2), "null id", columns=["id"])
    found.add(mask(0, 2), "unparsable age", columns=["age", "id"])
    found.add(mask(), "duplicate id", columns=["id"])
    return found


def test_a_row_keeps_its_first_reason(rejects: Rejects) -> None:
    assert rejects.counts() == {"null id": 1, "unparsable age": 1}
    assert rejects.good.tolist() == [False, True, False, True]


def test_rows_are_shown_in_order_with_their_values(rejects: Rejects) -> None:
    shown = rejects.first(2)
    assert shown[0].startswith("users.iloc:0: unparsable age: 'xxx")
    assert shown[0].endswith("x...")
    assert shown[1] == "users.iloc:2: null id: nan"
    assert rejects.first(1) == shown[:1]


def test_rejected_rows_are_given_as_they_were_read(rejects: Rejects) -> None:
    rows = rejects.rows()
    assert list(rows) == ["id", "age", "file", "row", "reason"]
    assert rows["age"].tolist() == ["x" * 200, "?"]
    assert rows["row"].tolist() == [0, 2]
    assert rows["reason"].tolist() == ["unparsable age", "null id"]


def test_malformed_lines_are_rejected_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("file,age\n1,2\n3\n4,5\n6,7,8\n")
    found = Rejects(read_table(FileFormat(path=str(path)), name="users"))
    found.add(mask(0, 1, size=2), "null id", columns=["file"])
    assert found.counts() == {"wrong number of fields": 2, "null id": 2}
    assert [line.removeprefix(str(path)) for line in found.first(3)] == [
        ":2: null id: '1'",
        ":3: wrong number of fields: '3'",
        ":4: null id: '4'",
    ]
    rows = found.rows()
    assert list(rows) == ["file", "age", "file", "row", "reason"]  # the table's own `file` stays
    assert rows.iloc[:, 0].tolist() == ["3", "6,7,8", "1", "4"]
    assert rows["row"].tolist() == [3, 5, 2, 4]


def test_fail_counts_and_shows_the_rows_and_names_the_remedy(rejects: Rejects) -> None:
    with pytest.raises(DataError) as raised:
        settle_rejects([rejects], on_bad_rows="fail", quarantine_dir=None)
    message = str(raised.value)
    assert "2 row(s) at fault" in message
    assert "users: 1 x null id" in message
    assert "users.iloc:2: null id: nan" in message
    assert 'on_bad_rows = "quarantine"' in message


def test_fail_shows_few_rows_of_many() -> None:
    found = Rejects(wrap_frame(pd.DataFrame({"id": range(100)}), name="items"))
    found.add(np.ones(100, dtype=bool), "null id", columns=["id"])
    with pytest.raises(DataError) as raised:
        settle_rejects([found], on_bad_rows="fail", quarantine_dir=None)
    assert str(raised.value).count("items.iloc:") == 5
    assert "items: 100 x null id" in str(raised.value)


def test_quarantine_writes_each_table_that_has_rejects(rejects: Rejects, tmp_path: Path) -> None:
    clean = Rejects(wrap_frame(pd.DataFrame({"id": [1]}), name="items"))
    folder = tmp_path / "runs" / "rejects"
    files = settle_rejects([rejects, clean], on_bad_rows="quarantine", quarantine_dir=folder)
    assert files == {"users": folder / "users.csv"}
    assert [path.name for path in folder.iterdir()] == ["users.csv"]
    written = pd.read_csv(folder / "users.csv")
    assert written["reason"].tolist() == ["unparsable age", "null id"]
    assert written["file"].tolist() == ["users.iloc", "users.iloc"]


def test_quarantine_without_a_folder_writes_nothing(rejects: Rejects) -> None:
    assert settle_rejects([rejects], on_bad_rows="quarantine", quarantine_dir=None) == {}


def test_nothing_is_settled_where_no_row_is_rejected(tmp_path: Path) -> None:
    clean = Rejects(wrap_frame(pd.DataFrame({"id": [1]}), name="items"))
    assert settle_rejects([clean], on_bad_rows="fail", quarantine_dir=tmp_path / "q") == {}
    assert not (tmp_path / "q").exists()
