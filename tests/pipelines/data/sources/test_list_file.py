"""Files whose lines are lists: an id or a number of values first, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.data.sources import files
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Source
from pipelines.table_config import EntityTable, FileFormat, InteractionsTable
from towers.errors import ConfigError, DataError


def opened(path: Path, table: type[FileFormat] = InteractionsTable, **settings: Any) -> Source:
    id = {"id": "item"} if table is EntityTable else {}
    described = table(**{"path": str(path), "separator": " ", **id, **settings})
    return open_source(described, name="items", stage=path.parent / "stage")


def rows(source: Source) -> list[list[str]]:
    frame: list[list[str]] = source.read(0, source.n_rows).frame.to_numpy().tolist()
    return frame


@pytest.mark.parametrize("limit", [1 << 28, 1])
def test_interactions_have_a_row_for_each_value(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", limit)
    path = tmp_path / "t.dat"
    path.write_text("u1 5 7\n\nu2  5\nu3\n")
    source = opened(path, lists="id")
    assert source.columns == ("user_id", "item_id")
    assert rows(source) == [["u1", "5"], ["u1", "7"], ["u2", "5"]]
    places = source.read(0, 3).locate(np.arange(3))
    assert places == [(str(path), 1), (str(path), 1), (str(path), 3)]
    assert source.empty_lines == 1


def test_without_ids_the_number_of_a_line_is_its_id(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_text("2 a b\n0\n3 c\n1 d\n")
    counted = opened(path, EntityTable, lists="count")
    assert counted.columns == ("item", "values")
    assert rows(counted) == [["0", "a|b"], ["1", ""], ["3", "d"]]
    assert [(line.row, line.text) for line in counted.malformed] == [(3, "3 c")]
    values = opened(path, EntityTable, lists="values", columns=("i", "tags"))
    assert rows(values)[0] == ["0", "2|a|b"]
    assert values.columns == ("i", "tags")


def test_lists_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("1 2\n")
    with pytest.raises(DataError, match="expected one file of lists"):
        opened(tmp_path, lists="count")
    assert len(rows(opened(tmp_path, lists="id"))) == 2
    with pytest.raises(ConfigError, match="expected two columns for lists"):
        opened(tmp_path / "a.csv", lists="id", columns=("a", "b", "c"))
    with pytest.raises(ConfigError, match="encoding that Python knows"):
        opened(tmp_path / "a.csv", lists="id", encoding="nonsense")
