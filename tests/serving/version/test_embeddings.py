from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.version import embeddings as module
from serving.version.embeddings import Embeddings, read_ids
from towers.errors import BundleError, QueryError

VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
IDS: dict[str, list[Any]] = {"integers": [3, -(2**62), 2**62 + 1], "texts": ["b", "10", ""]}


@pytest.mark.parametrize("kind", IDS)
def test_what_was_written_is_read(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"id": IDS[kind], "tags": [["x"], [], ["y", "z"]], "price": [1.5, None, 2]}
    )
    Embeddings.from_pandas(table, VECTORS).write(tmp_path / "side.parquet")
    read = Embeddings.read(tmp_path / "side.parquet")
    np.testing.assert_array_equal(read.vectors, VECTORS)
    assert read.vectors.dtype == np.float32
    assert read.id_column == "id"
    assert read.ids.to_numpy().tolist() == IDS[kind]
    assert read.table["tags"].to_pylist() == [["x"], [], ["y", "z"]]
    assert read.rows([IDS[kind][2], IDS[kind][0]]).tolist() == [2, 0]
    assert read.rows([]).tolist() == []


def test_a_file_in_parts_is_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "side.parquet"
    year = pd.array([1990, None, 1992], dtype="Int64")
    table = pd.DataFrame({"id": IDS["texts"], "year": year})
    Embeddings.from_pandas(table, VECTORS).write(path)
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    read = Embeddings.read(path)
    np.testing.assert_array_equal(read.vectors, VECTORS)
    assert read.columns == ["id", "year"]
    assert read.rows(IDS["texts"]).tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(read.table.to_pandas(), table)
    assert read_ids(path).to_numpy().tolist() == IDS["texts"]


def test_columns_may_have_any_names_and_types(tmp_path: Path) -> None:
    path = tmp_path / "side.parquet"
    days = pd.date_range("2024-01-02", periods=3, tz="Europe/Oslo")
    table = pd.DataFrame(
        {
            "columns": IDS["integers"],
            "vector": ["a", None, "b"],
            "columns.vector": pd.array([2**60 + 1, None, 3], dtype="Int64"),
            "columns.": [[1], None, []],
            "kind": pd.Categorical(["x", None, "y"]),
            "day": days,
        }
    )
    Embeddings.from_pandas(table, VECTORS).write(path)
    read = Embeddings.read(path)
    assert read.columns == list(table)
    expected = pa.Table.from_pandas(table, preserve_index=False)
    assert read.table.to_pylist() == expected.to_pylist()
    pd.testing.assert_series_equal(read.table.to_pandas().dtypes, table.dtypes)
    assert read_ids(path).to_numpy().tolist() == IDS["integers"]
    np.testing.assert_array_equal(read.vectors, VECTORS)


def test_files_of_the_first_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "side.parquet"
    table = pa.table({"id": IDS["texts"], "year": [1, None, 3]})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 2)
    pq.write_table(table.append_column("vector", vectors), path)
    read = Embeddings.read(path)
    assert read.columns == ["id", "year"]
    assert read.table.to_pylist() == table.to_pylist()
    np.testing.assert_array_equal(read.vectors, VECTORS)
    assert read_ids(path).to_numpy().tolist() == IDS["texts"]


@pytest.mark.parametrize("is_wide", [False, True])
def test_a_column_in_parts_is_answered_as_one(
    monkeypatch: pytest.MonkeyPatch, is_wide: bool
) -> None:
    if is_wide:  # as of texts that narrow offsets do not reach
        monkeypatch.setattr(module, "LARGEST_NARROW", 0)
    part = pa.table({"id": ["a", "b"], "tags": [["x"], None], "year": [1, 2]})
    table = pa.concat_tables([part, pa.table(part.to_pydict() | {"id": ["c", "d"]})])
    embeddings = Embeddings(table, np.zeros((4, 2), np.float32))
    text = pa.large_string() if is_wide else pa.string()
    assert embeddings.column("id").type == text
    assert embeddings.column("tags").type == (pa.large_list(text) if is_wide else pa.list_(text))
    assert embeddings.column("tags").to_pylist() == [["x"], None, ["x"], None]
    assert embeddings.column("year").to_pylist() == [1, 2, 1, 2]
    assert embeddings.rows(["d", "a"]).tolist() == [3, 0]


def test_ids_of_another_type_are_refused_and_unknown_ones_have_no_row() -> None:
    integers = Embeddings.from_pandas(pd.DataFrame({"id": [0, 1]}), VECTORS[:2])
    texts = Embeddings.from_pandas(pd.DataFrame({"id": ["0", "1"]}), VECTORS[:2])
    assert integers.rows([5, np.int64(1)]).tolist() == [-1, 1]
    assert texts.rows(["5", "1"]).tolist() == [-1, 1]
    for embeddings, wrong in ((integers, "1"), (integers, True), (integers, 1.0), (texts, 1)):
        with pytest.raises(QueryError, match="id: expected"):
            embeddings.rows([wrong])


def test_file_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.parquet: expected a Parquet file"):
        Embeddings.read(tmp_path / "none.parquet")
    with pytest.raises(BundleError, match=r"none\.parquet: expected a Parquet file"):
        read_ids(tmp_path / "none.parquet")
    pd.DataFrame({"id": [1]}).to_parquet(tmp_path / "side.parquet")
    with pytest.raises(BundleError, match=r"side\.parquet: .*'vector'"):
        Embeddings.read(tmp_path / "side.parquet")
    lists = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    for column in (lists, pa.array([[1.0]] * 3, pa.list_(pa.float32())), pa.array([1.0] * 3)):
        pq.write_table(pa.table({"id": [1, 2, 3], "vector": column}), tmp_path / "side.parquet")
        with pytest.raises(BundleError, match=r"side\.parquet: .*'vector'"):
            Embeddings.read(tmp_path / "side.parquet")
