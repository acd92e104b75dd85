from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.behaviours import resolve
from pipelines.data.columns.ids import decide_id_kind
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.data.steps.chunks import Chunks
from pipelines.table_config import InteractionsTable

CHOSEN = resolve({}, has_event=False, has_rating=False)


def shards(folder: Path, *columns: list[Any], chunk_rows: int = 3, **table: Any) -> Chunks:
    """Shards with one column `x`."""
    for number, values in enumerate(columns):
        pq.write_table(pa.table({"x": values}), folder / f"{number}.parquet")
    described = InteractionsTable(path=str(folder), user="x", item="x", **table)
    source = open_source(described, name="interactions")
    return Chunks(source=source, table=described, chunk_rows=chunk_rows, behaviours=CHOSEN)


def test_chunks_know_where_their_rows_are(tmp_path: Path) -> None:
    table = shards(tmp_path, [0, 1], [], [2, 3, 4, 5, 6])
    assert (table.n_rows, table.n_chunks) == (7, 3)
    read = [table.read(number) for number in range(3)]
    assert [chunk.frame["x"].tolist() for chunk in read] == [[0, 1, 2], [3, 4, 5], [6]]
    first, last = f"{tmp_path}/0.parquet", f"{tmp_path}/2.parquet"
    assert read[0].locate(np.array([0, 1, 2])) == [(first, 1), (first, 2), (last, 1)]
    assert read[2].locate(np.array([0])) == [(last, 5)]
    assert {chunk.where for chunk in read} == {f"interactions ({first} and 2 more)"}


def test_every_chunk_has_the_types_of_all_shards(tmp_path: Path) -> None:
    table = shards(tmp_path, [1, 2, 3], [1.5])
    assert [table.read(number).frame["x"].dtype for number in range(2)] == ["float64", "float64"]


def test_an_empty_table_is_one_empty_chunk(tmp_path: Path) -> None:
    table = shards(tmp_path, [])
    assert (table.n_rows, table.n_chunks) == (0, 1)
    assert len(table.read(0).frame) == 0
    assert len(table.sample_ids("x").present) == 0


def test_ids_are_read_until_there_is_one(tmp_path: Path) -> None:
    table = shards(tmp_path, [None] * 1500, ["a", "b"], chunk_rows=600)
    ids = table.sample_ids("x")
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
    times = shards(tmp_path, values, chunk_rows=1, timestamp="x").times
    assert times is not None
    assert times.are_dates == expected


def test_without_times_there_are_no_dates(tmp_path: Path) -> None:
    assert shards(tmp_path, ["2020-01-01"]).times is None


def test_a_frame_is_cut_into_chunks_too() -> None:
    frame = pd.DataFrame({"x": [5, 6, 7, 8], "y": list("abcd")}, index=[3, 3, 1, 0])
    table = Chunks(
        source=FrameSource.of(frame, name="interactions"),
        table=InteractionsTable(user="x", item="x"),
        chunk_rows=3,
        behaviours=CHOSEN,
    )
    assert [table.read(number).frame["x"].tolist() for number in range(2)] == [[5, 6, 7], [8]]
    assert table.read(1).locate(np.array([0])) == [("interactions.iloc", 3)]


@pytest.mark.parametrize(
    ("lines", "expected"), [(["1"] * 5, "integer"), (["1", "1", "1", "b", "2"], "text")]
)
def test_text_without_a_type_is_integers_only_if_all_of_it_is(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["x", *lines]) + "\n")
    table = InteractionsTable(path=str(path), user="x", item="x")
    source = open_source(table, name="interactions")
    ids = Chunks(source=source, table=table, chunk_rows=2, behaviours=CHOSEN).sample_ids("x")
    assert decide_id_kind([ids]) == expected


def test_a_frame_tells_its_ids_whole() -> None:
    frame = pd.DataFrame({"x": [*range(3000), "a"]})
    table = Chunks(
        source=FrameSource.of(frame, name="interactions"),
        table=InteractionsTable(user="x", item="x"),
        chunk_rows=2000,
        behaviours=CHOSEN,
    )
    assert len(table.sample_ids("x").present) == 3001
