from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import InteractionsTable
from pipelines.data.stream.source import StreamedTable, open_streamed
from towers.errors import ConfigError, DataError


def shards(folder: Path, *columns: list[Any], chunk_rows: int = 3, **table: Any) -> StreamedTable:
    """Shards with one column `x`."""
    for number, values in enumerate(columns):
        pq.write_table(pa.table({"x": values}), folder / f"{number}.parquet")
    described = InteractionsTable(path=str(folder), user="x", item="x", **table)
    return open_streamed(described, name="interactions", chunk_rows=chunk_rows)


def test_chunks_know_where_their_rows_are(tmp_path: Path) -> None:
    table = shards(tmp_path, [0, 1], [], [2, 3, 4, 5, 6])
    assert (table.n_rows, table.n_chunks) == (7, 3)
    chunks = [table.chunk(number) for number in range(3)]
    assert [chunk.frame["x"].tolist() for chunk in chunks] == [[0, 1, 2], [3, 4, 5], [6]]
    first, last = f"{tmp_path}/0.parquet", f"{tmp_path}/2.parquet"
    assert chunks[0].locate(np.array([0, 1, 2])) == [(first, 1), (first, 2), (last, 1)]
    assert chunks[2].locate(np.array([0])) == [(last, 5)]
    assert {chunk.where for chunk in chunks} == {f"interactions ({first} and 2 more)"}


def test_rows_are_read_again_by_their_positions(tmp_path: Path) -> None:
    table = shards(tmp_path, [0, 1], [2, 3, 4, 5, 6])
    found = list(table.rows_at(np.array([1, 2, 6])))
    assert [rows.frame["x"].tolist() for rows in found] == [[1, 2], [6]]
    places = [rows.locate(np.arange(len(rows.frame))) for rows in found]
    assert [row for rows in places for _, row in rows] == [2, 1, 5]
    assert [Path(file).name for file, _ in places[0]] == ["0.parquet", "1.parquet"]


def test_every_chunk_has_the_types_of_all_shards(tmp_path: Path) -> None:
    table = shards(tmp_path, [1, 2, 3], [1.5])
    assert [table.chunk(number).frame["x"].dtype for number in range(2)] == ["float64", "float64"]


def test_an_empty_table_is_one_empty_chunk(tmp_path: Path) -> None:
    table = shards(tmp_path, [])
    assert (table.n_rows, table.n_chunks) == (0, 1)
    assert len(table.chunk(0).frame) == 0
    assert len(table.first_ids("x").present) == 0


def test_ids_are_read_until_there_is_one(tmp_path: Path) -> None:
    table = shards(tmp_path, [None] * 1500, ["a", "b"], chunk_rows=600)
    ids = table.first_ids("x")
    assert ids.present.tolist() == ["a", "b"]
    [place] = ids.source.locate(np.array([ids.present.index[0]]))
    assert place == (f"{tmp_path}/1.parquet", 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], False),
        (["1", "2", "soon", "never"], False),
        (["1", "soon", "soon", "2020-01-01"], True),
        ([None, None], False),
        (np.array(["2020-01-01"], dtype="datetime64[ms]"), True),
    ],
)
def test_all_chunks_decide_whether_times_are_dates(
    tmp_path: Path, values: list[Any], expected: bool
) -> None:
    assert shards(tmp_path, values, chunk_rows=1, timestamp="x").has_dates() == expected


def test_without_times_there_are_no_dates(tmp_path: Path) -> None:
    assert not shards(tmp_path, ["2020-01-01"]).has_dates()


def test_what_cannot_be_read_in_chunks_is_refused(tmp_path: Path) -> None:
    def opening(path: str) -> StreamedTable:
        table = InteractionsTable(path=path)
        return open_streamed(table, name="interactions", chunk_rows=3)

    with pytest.raises(ConfigError, match="expected the path of a table"):
        opening("")
    with pytest.raises(DataError, match="no such file or folder"):
        opening(str(tmp_path / "nothing"))
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(ConfigError, match=r"expected Parquet.*a\.csv.*--engine memory"):
        opening(str(tmp_path / "a.csv"))
    twice = pa.table([[1], [2]], names=["x", "x"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"expected each column once.*'x'"):
        opening(str(tmp_path / "twice.parquet"))
