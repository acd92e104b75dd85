from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.versions.export_vectors import export_vectors
from serving.retrieval.retriever import Retriever
from towers.errors import ConfigError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call
    from towers.features.schema import Side


@pytest.mark.parametrize("side", ["user", "item"])
def test_parquet_and_npy_hold_every_vector_beside_its_id(
    models: Path, tmp_path: Path, side: Side
) -> None:
    catalogue = Retriever.open(models, version=1).catalogue(side)
    ids = catalogue.published.ids.to_numpy().tolist()
    for format in ("parquet", "npy"):
        out = tmp_path / "deep" / format
        count = export_vectors(models, out, side=side, format=format, version=1)
        assert count == len(ids)
        about = json.loads((out / "about.json").read_text())
        assert (about["version"], about["side"], about["dimensions"]) == (1, side, 9)
    table = pq.read_table(tmp_path / "deep" / "parquet" / "vectors.parquet")
    assert table["id"].to_pylist() == ids
    assert (np.stack(table["vector"].to_pylist()).astype(np.float32) == catalogue.vectors).all()
    vectors = np.load(tmp_path / "deep" / "npy" / "vectors.npy", allow_pickle=False)
    assert (vectors == catalogue.vectors).all()
    assert pq.read_table(tmp_path / "deep" / "npy" / "ids.parquet")["id"].to_pylist() == ids


def test_faiss_finds_what_the_version_does(call: Call, models: Path, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    answer = call("export", models, "--vectors", "faiss", "--side", "item", "-o", tmp_path / "out")
    assert (answer.code, answer.out) == (0, f"40 vectors of items: {tmp_path / 'out'}\n")
    retriever = Retriever.open(models)
    users = retriever.catalogue("user")
    index = faiss.read_index(str(tmp_path / "out" / "vectors.faiss"))
    _, rows = index.search(users.vectors[:5], 3)
    ids = pq.read_table(tmp_path / "out" / "ids.parquet")["id"].to_numpy()
    asked = users.ids(np.arange(5)).tolist()
    assert ids[rows].tolist() == retriever.retrieve_batch("u2i", ids=asked, k=3).ids.tolist()


def test_nothing_is_written_where_it_cannot_be(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    with pytest.raises(ConfigError, match="an empty one"):
        export_vectors(models, kept, side="item", format="npy")
    with pytest.raises(ConfigError, match="'csv'"):
        export_vectors(models, tmp_path / "new", side="item", format="csv")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"fm-recall\[faiss\]"):
        export_vectors(models, tmp_path / "new", side="item", format="faiss")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
