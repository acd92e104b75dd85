from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import IndexConfig
from pipelines.publishing import index_direction as indexing
from pipelines.publishing.draw_queries import Queries
from pipelines.publishing.index_direction import describe, index_direction
from serving.search.graph_search import ExactSearch, ShellSearch
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.search.shells import Shell, Shells
from towers.directions import DIRECTIONS
from towers.errors import RecallGateError

RANDOM = np.random.default_rng(4)
ITEMS = RANDOM.normal(size=(500, 6)).astype(np.float32)
GROUPS = {"users by activity": slice(0, 20), "newcomers": slice(20, 30)}
USERS = Queries(RANDOM.normal(size=(30, 6)).astype(np.float32), GROUPS)
U2I = DIRECTIONS["u2i"]


def too_little(corpus: Any, queries: Any, **_: Any) -> tuple[Shells, list[Any]]:
    """An index that finds less than its measures said."""
    few = ScannSettings(num_leaves=20, reorder=5, recall_k=5)
    index = ScannIndex.build(corpus, few)
    return Shells((Shell(index, np.arange(len(corpus)), np.inf),)), []


@pytest.mark.parametrize("kind", ["scann", "exact"])
def test_few_targets_are_all_scored(kind: Any, tmp_path: Path) -> None:
    config = IndexConfig(kind=kind, recall_k=5)
    search, indexed = index_direction(U2I, ITEMS, USERS, config=config, folder=tmp_path / "index")
    assert isinstance(search, ShellSearch if kind == "scann" else ExactSearch)
    assert (indexed.record.recall, indexed.record.trees) == (1.0, ())
    assert not (tmp_path / "index").exists()
    n, width = ITEMS.shape
    shown = f"u2i: every vector is scored; {n:,} vectors of {width} coordinates, "
    assert describe("u2i", indexed).startswith(shown)
    assert indexed.per_second > 0


def test_where_the_graph_finds_too_little_the_index_is_exact_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was tuned does not count: the graph that is exported is measured again."""
    monkeypatch.setattr(indexing, "build_index", too_little)
    config = IndexConfig(kind="scann", recall=0.999, recall_k=5)
    search, indexed = index_direction(U2I, ITEMS, USERS, config=config, folder=tmp_path / "index")
    assert isinstance(search, ExactSearch)
    rows, _ = search(tf.constant(USERS.vectors), tf.constant(5))
    expected = np.argsort(-(USERS.vectors @ ITEMS.T), axis=1)[:, :5]
    np.testing.assert_array_equal(rows.numpy(), expected)
    assert (indexed.record.recall, indexed.record.trees) == (1.0, ())
    assert "expected recall@5 of at least 0.999, reached 0." in indexed.record.missed
    assert any(f"for {name}" in indexed.record.missed for name in GROUPS)
    assert describe("u2i", indexed).startswith("u2i: the index is exact, and slower, since ScaNN's")
    assert not (tmp_path / "index").exists()


def test_or_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "build_index", too_little)
    config = IndexConfig(kind="scann", recall=0.999, recall_k=5, on_miss="fail")
    with pytest.raises(RecallGateError, match=r"^index u2i: .*; nothing was published$"):
        index_direction(U2I, ITEMS, USERS, config=config, folder=tmp_path / "index")
