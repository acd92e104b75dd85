from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.search.equal_vectors import Places
from serving.search.graph_search import ShellSearch
from serving.search.index import ExactIndex
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.search.shells import Shell, Shells
from towers.errors import BundleError

EVERY = ScannSettings(num_leaves=None)
TREE = ScannSettings(num_leaves=8, leaves_to_search=3, reorder=40, recall_k=20)
RANDOM = np.random.default_rng(3)
VECTORS = RANDOM.normal(size=(300, 5)).astype(np.float32)
VECTORS[:20] *= 100
QUERIES = RANDOM.normal(size=(9, 5)).astype(np.float32)


def shells(*, places: Places | None = None) -> Shells:
    lengths = np.linalg.norm(VECTORS, axis=1)
    parts = np.split(np.argsort(-lengths), [20])
    return Shells(
        tuple(
            Shell(ScannIndex.build(VECTORS[rows], how), rows, float(lengths[rows[0]]))
            for rows, how in zip(parts, [EVERY, TREE], strict=True)
        ),
        places,
    )


@pytest.mark.parametrize("places", [None, Places(np.arange(301) * 2, np.arange(600))])
def test_stored_shells_answer_the_same(tmp_path: Path, places: Places | None) -> None:
    index = shells(places=places)
    index.save(tmp_path / "index")
    loaded = Shells.load(tmp_path / "index", settings=index.settings, width=5)
    assert loaded.size == index.size
    for expected, received in zip(
        open_shells(index).search(QUERIES, 30), open_shells(loaded).search(QUERIES, 30), strict=True
    ):
        np.testing.assert_array_equal(received, expected)


def test_one_tree_of_an_earlier_version_is_read_as_one_shell(tmp_path: Path) -> None:
    tree = ScannIndex.build(VECTORS, TREE)
    tree.save(tmp_path)
    index = open_shells(Shells.load(tmp_path, settings=(TREE,), width=5))
    for expected, received in zip(tree.search(QUERIES, 30), index.search(QUERIES, 30), strict=True):
        np.testing.assert_array_equal(received, expected)


def test_shells_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    index = shells()
    index.save(tmp_path / "index")
    with pytest.raises(BundleError, match="expected the rows of 3 shells"):
        Shells.load(tmp_path / "index", settings=(*index.settings, TREE), width=5)
    (tmp_path / "index" / "shells.npz").unlink()
    with pytest.raises(BundleError, match="expected the rows of 2 shells"):
        Shells.load(tmp_path / "index", settings=index.settings, width=5)


def test_a_shell_that_cannot_reach_the_kth_score_is_not_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    search = ScannIndex.search_checked

    def noted(index: ScannIndex, queries: Any, k: int, **how: Any) -> Any:
        asked.append((index.size, len(queries)))
        return search(index, queries, k, **how)

    monkeypatch.setattr(ScannIndex, "search_checked", noted)
    index = open_shells(shells())
    towards = VECTORS[np.argmax(np.linalg.norm(VECTORS, axis=1))][np.newaxis]
    rows, _ = index.search(np.concatenate([towards, -towards]), 1)
    assert asked == [(20, 2)]
    np.testing.assert_array_equal(
        rows, ExactIndex(VECTORS).search(np.concatenate([towards, -towards]), 1)[0]
    )
    asked.clear()
    index.search(towards, 25)  # the long vectors are fewer
    assert asked == [(20, 1), (280, 1)]


def test_the_graph_passes_over_the_same_shells() -> None:
    index = shells()
    towards = VECTORS[np.argmax(np.linalg.norm(VECTORS, axis=1))][np.newaxis]
    queries = np.concatenate([towards, QUERIES])
    search, live = ShellSearch.of(index), open_shells(index)
    for k in (3, 25):  # the long vectors are more, and fewer
        rows, scores = search(tf.constant(queries), tf.constant(k))
        expected = live.search(queries, k)
        np.testing.assert_array_equal(rows.numpy(), expected[0])
        np.testing.assert_allclose(scores.numpy(), expected[1], rtol=1e-5)


@pytest.mark.parametrize("longest", [np.inf, 300.0])
def test_a_query_of_length_zero_finds_as_many_as_any(longest: float) -> None:
    index = Shells((Shell(ScannIndex.build(VECTORS, TREE), np.arange(300), longest),))
    nothing = np.zeros((2, 5), dtype=np.float32)
    rows, scores = open_shells(index).search(nothing, 30)
    in_graph, _ = tf.function(ShellSearch.of(index), autograph=False)(
        tf.constant(nothing), tf.constant(30)
    )
    assert all(len(set(found)) == 30 and min(found) >= 0 for found in rows.tolist())
    assert all(len(set(found)) == 30 and min(found) >= 0 for found in in_graph.numpy().tolist())
    assert (scores == 0.0).all()
