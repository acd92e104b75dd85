"""What every index promises, in Python and inside a TensorFlow graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.search.equal_vectors import Places
from serving.search.graph_search import ExactSearch, ScannSearch, Search, ShellSearch
from serving.search.index import ExactIndex, Index, search_without
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.search.shells import Shell, Shells
from towers.errors import QueryError

SIZE, WIDTH = 400, 9
BRUTE_FORCE = ScannSettings(num_leaves=None)
TREE = ScannSettings(num_leaves=20, leaves_to_search=6, reorder=60, recall_k=20)
BFLOAT16 = dataclasses.replace(TREE, storage="bfloat16")
INT8 = dataclasses.replace(TREE, storage="int8")
WHOLE = dataclasses.replace(TREE, residuals=False)


class InGraph:
    """A search inside a graph, called as an index is."""

    def __init__(self, search: Search, *, size: int) -> None:
        self.size = size
        self._search = tf.function(search, reduce_retracing=True, autograph=False)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[Any, Any]:
        rows, scores = self._search(tf.constant(queries), tf.constant(k))
        return rows.numpy(), scores.numpy()


def in_graph_scann(vectors: NDArray[np.float32], settings: ScannSettings) -> Index:
    index = ScannIndex.build(vectors, settings)
    return InGraph(ScannSearch.of(index), size=index.size)


def in_shells(vectors: NDArray[np.float32], settings: ScannSettings = TREE) -> Shells:
    """The longest tenth scored one by one, the others in two trees."""
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(-lengths)
    shells = []
    for rows, how in zip(
        np.split(order, [40, 160]), [BRUTE_FORCE, settings, settings], strict=True
    ):
        index = ScannIndex.build(vectors[rows], how)
        shells.append(Shell(index, rows, float(lengths[rows[0]])))
    return Shells(tuple(shells))


def with_places(index: Shells) -> Shells:
    """The same, with a place for each row: the places go by length."""
    rows = np.concatenate([shell.rows for shell in index.shells])
    ends = np.cumsum([len(shell.rows) for shell in index.shells])
    places = np.split(np.arange(len(rows)), ends[:-1])
    shells = [
        dataclasses.replace(shell, rows=own)
        for shell, own in zip(index.shells, places, strict=True)
    ]
    return Shells(tuple(shells), Places(np.arange(len(rows) + 1), rows))


def in_graph_shells(index: Shells) -> Index:
    return InGraph(ShellSearch.of(index), size=index.size)


PYTHON: dict[str, Callable[[NDArray[np.float32]], Index]] = {
    "exact": ExactIndex,
    "scann brute force": lambda vectors: ScannIndex.build(vectors, BRUTE_FORCE),
    "scann tree": lambda vectors: ScannIndex.build(vectors, TREE),
    "scann tree, bfloat16": lambda vectors: ScannIndex.build(vectors, BFLOAT16),
    "scann tree, int8": lambda vectors: ScannIndex.build(vectors, INT8),
    "scann tree, no residuals": lambda vectors: ScannIndex.build(vectors, WHOLE),
    "scann trees in shells": lambda vectors: open_shells(in_shells(vectors)),
    "scann trees in shells, places": lambda vectors: open_shells(with_places(in_shells(vectors))),
}
ALL: dict[str, Callable[[NDArray[np.float32]], Index]] = PYTHON | {
    "graph exact": lambda v: InGraph(ExactSearch(v), size=len(v)),
    "graph scann brute force": lambda vectors: in_graph_scann(vectors, BRUTE_FORCE),
    "graph scann tree": lambda vectors: in_graph_scann(vectors, TREE),
    "graph scann tree, bfloat16": lambda vectors: in_graph_scann(vectors, BFLOAT16),
    "graph scann tree, int8": lambda vectors: in_graph_scann(vectors, INT8),
    "graph scann tree, no residuals": lambda v: in_graph_scann(v, WHOLE),
    "graph scann trees in shells": lambda vectors: in_graph_shells(in_shells(vectors)),
    "graph scann trees in shells, bfloat16": lambda v: in_graph_shells(in_shells(v, BFLOAT16)),
    "graph scann trees in shells, places": lambda v: in_graph_shells(with_places(in_shells(v))),
}
EXACT = [name for name in ALL if "tree" not in name]
"""Those that score every vector."""

OFF = {"bfloat16": 0.1, "int8": 0.2}
"""How far scores may be off, of which most are between -15 and 15."""

RANDOM = np.random.default_rng(8)
VECTORS = RANDOM.normal(size=(SIZE, WIDTH)).astype(np.float32)
VECTORS[:, 0] *= 5  # an item's own quality is on another scale
QUERIES = RANDOM.normal(size=(30, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes() -> dict[str, Index]:
    return {name: make(VECTORS) for name, make in ALL.items()}


def by_full_sort(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def pairs(excluded: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    queries = np.repeat(np.arange(len(excluded)), [len(rows) for rows in excluded])
    return queries, np.concatenate([np.empty(0, np.int64), *excluded])


@pytest.mark.parametrize("k", [1, 20, 77, SIZE - 1, SIZE, SIZE + 50])
@pytest.mark.parametrize("name", ALL)
def test_as_many_rows_as_asked_for_with_their_scores(
    indexes: dict[str, Index], name: str, k: int
) -> None:
    assert indexes[name].size == SIZE
    rows, scores = indexes[name].search(QUERIES, k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert rows.shape == scores.shape == (len(QUERIES), min(k, SIZE))
    assert all(len(set(found)) == len(found) for found in rows.tolist())
    expected = np.take_along_axis(QUERIES @ VECTORS.T, rows, axis=1)
    off = next((off for storage, off in OFF.items() if name.endswith(storage)), 1e-5)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=off)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("name", ALL)
def test_true_neighbours_are_found(indexes: dict[str, Index], name: str) -> None:
    rows, _ = indexes[name].search(QUERIES, 20)
    expected = by_full_sort(VECTORS, QUERIES, 20)
    if name in EXACT:
        np.testing.assert_array_equal(rows, expected)
    shares = [np.isin(found, true).mean() for found, true in zip(rows, expected, strict=True)]
    assert np.mean(shares) > 0.5


@pytest.mark.parametrize("name", ALL)
def test_one_answer_alone_or_in_a_batch(indexes: dict[str, Index], name: str) -> None:
    """All but: ScaNN rounds the scores in a tree differently for one query and for several."""
    rows, _ = indexes[name].search(QUERIES, 90)
    for query, expected in zip(QUERIES[:5], rows, strict=False):
        (alone,), _ = indexes[name].search(query[np.newaxis], 90)
        if name in EXACT:
            np.testing.assert_array_equal(alone, expected)
        assert np.isin(alone, expected).mean() > 0.9


@pytest.mark.parametrize("name", ALL)
def test_no_queries_no_rows(indexes: dict[str, Index], name: str) -> None:
    rows, scores = indexes[name].search(QUERIES[:0], 5)
    assert rows.shape == scores.shape == (0, 5)


@pytest.mark.parametrize("name", EXACT)
def test_ties_go_to_the_lower_row(name: str) -> None:
    vectors = RANDOM.integers(-1, 2, size=(200, 3)).astype(np.float32)
    queries = np.array([[0, 0, 0], [1, 0, 0], [1, 1, -1]], np.float32)
    rows, _ = ALL[name](vectors).search(queries, 50)
    np.testing.assert_array_equal(rows, by_full_sort(vectors, queries, 50))


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (QUERIES, 0, "k: expected at least 1, received 0"),
        (QUERIES[:, 1:], 5, r"expected shape \[n, 9\], received \[30, 8\]"),
        (QUERIES[0], 5, r"expected shape \[n, 9\], received \[9\]"),
        (np.full((1, WIDTH), np.nan, np.float32), 5, "expected finite numbers"),
    ],
)
def test_queries_that_make_no_sense_are_refused(
    indexes: dict[str, Index], name: str, queries: NDArray[np.float32], k: int, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        indexes[name].search(queries, k)


@pytest.mark.parametrize("name", PYTHON)
def test_search_without_leaves_out_as_many_as_are_excluded(
    indexes: dict[str, Index], name: str
) -> None:
    index = indexes[name]
    best, _ = index.search(QUERIES, 60)
    excluded = [found[: 2 * query] for query, found in enumerate(best)]
    tens = np.full(len(QUERIES), 10)
    rows, scores = search_without(index, QUERIES, k=tens, width=10, unwanted=pairs(excluded))
    for query, found in enumerate(rows):
        assert len(set(found.tolist()) - set(excluded[query].tolist())) == 10
    assert (np.diff(scores, axis=1) <= 0).all()


@given(data=st.data(), size=st.integers(1, 20), n=st.integers(0, 3))
def test_search_without_is_a_search_of_the_others(data: st.DataObject, size: int, n: int) -> None:
    values = st.integers(-2, 2).map(float)
    vectors = data.draw(hnp.arrays(np.float32, (size, 2), elements=values))
    queries = data.draw(hnp.arrays(np.float32, (n, 2), elements=values))
    unwanted = data.draw(hnp.arrays(np.bool_, (n, size)))
    excluded = [np.flatnonzero(row)[::-1] for row in unwanted]
    k = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 30)))
    width = int(k.max(initial=0)) + data.draw(st.integers(0, 5))
    rows, scores = search_without(
        ExactIndex(vectors), queries, k=k, width=width, unwanted=pairs(excluded)
    )
    assert rows.shape == scores.shape == (n, min(width, size))
    for query, found in enumerate(rows):
        ranked = by_full_sort(vectors, queries[[query]], size)[0].tolist()
        others = [row for row in ranked if not unwanted[query, row]][: k[query]]
        assert found.tolist() == others + [-1] * (len(found) - len(others))
        assert np.isneginf(scores[query, len(others) :]).all()


def test_a_search_that_was_released_answers_the_same_again() -> None:
    search = ScannSearch.of(ScannIndex.build(VECTORS, TREE))
    expected, _ = search(tf.constant(QUERIES), tf.constant(10))
    search.release()
    rows, _ = search(tf.constant(QUERIES), tf.constant(10))
    np.testing.assert_array_equal(rows, expected)
