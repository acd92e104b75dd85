from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.embeddings import Embeddings
from towers.errors import BundleError, QueryError

VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)
IDS: dict[str, list[Any]] = {"integers": [3, -(2**62), 2**62 + 1], "texts": ["b", "10", ""]}


@pytest.mark.parametrize("kind", IDS)
def test_what_was_written_is_read(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"id": IDS[kind], "tags": [["x"], [], ["y", "z"]], "price": [1.5, None, 2]}
    )
    Embeddings(table, VECTORS).write(tmp_path / "side.parquet")
    read = Embeddings.read(tmp_path / "side.parquet")
    np.testing.assert_array_equal(read.vectors, VECTORS)
    assert read.vectors.dtype == np.float32
    assert read.id_column == "id"
    assert read.ids.tolist() == IDS[kind]
    assert read.table["tags"].map(list).tolist() == [["x"], [], ["y", "z"]]
    assert read.rows([IDS[kind][2], IDS[kind][0]]).tolist() == [2, 0]
    assert read.rows([]).tolist() == []


def test_ids_of_another_type_are_refused_and_unknown_ones_have_no_row() -> None:
    integers = Embeddings(pd.DataFrame({"id": [0, 1]}), VECTORS[:2])
    texts = Embeddings(pd.DataFrame({"id": ["0", "1"]}), VECTORS[:2])
    assert integers.rows([5, np.int64(1)]).tolist() == [-1, 1]
    assert texts.rows(["5", "1"]).tolist() == [-1, 1]
    for embeddings, wrong in ((integers, "1"), (integers, True), (integers, 1.0), (texts, 1)):
        with pytest.raises(QueryError, match="id: expected"):
            embeddings.rows([wrong])


def test_file_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.parquet: expected a Parquet file"):
        Embeddings.read(tmp_path / "none.parquet")
    pd.DataFrame({"id": [1]}).to_parquet(tmp_path / "side.parquet")
    with pytest.raises(BundleError, match=r"side\.parquet: .*'vector'"):
        Embeddings.read(tmp_path / "side.parquet")
