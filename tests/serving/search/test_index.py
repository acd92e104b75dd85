from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.search import index
from serving.search.index import STRIDE, number_pairs, search_rows


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_pairs_are_numbered_in_order_and_none_twice(pairs: list[tuple[int, int]]) -> None:
    queries, rows = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    expected = [query * STRIDE + row for query, row in sorted(set(pairs))]
    assert number_pairs((queries, rows)).tolist() == expected


@pytest.mark.parametrize("k", [1, 3, 40, 100])
@pytest.mark.parametrize("n_queries", [0, 1, 30])
def test_vectors_scored_block_by_block_give_what_one_sort_gives(
    monkeypatch: pytest.MonkeyPatch, k: int, n_queries: int
) -> None:
    monkeypatch.setattr(index, "BLOCK_ROWS", 7)
    monkeypatch.setattr(index, "DEPTH", 1)
    monkeypatch.setattr(index, "LARGEST_BLOCK", 60)
    rng = np.random.default_rng(3)
    vectors = rng.integers(-1, 2, size=(100, 3)).astype(np.float32)  # with many ties
    queries = rng.integers(-1, 2, size=(n_queries, 3)).astype(np.float32)
    rows, scores = search_rows(vectors, queries, k)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(queries @ vectors.T, rows, axis=1))


def test_scores_beyond_float32_are_not_listed_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BLOCK_ROWS", 4)
    monkeypatch.setattr(index, "DEPTH", 1)
    monkeypatch.setattr(index, "LARGEST_BLOCK", 4)
    vectors = np.full((12, 1), -3e38, np.float32)
    vectors[[1, 9]] = 1.0
    with np.errstate(over="ignore"):
        rows, scores = search_rows(vectors, np.full((1, 1), 2.0, np.float32), 3)
    assert rows.tolist() == [[1, 9, -1]]
    assert scores.tolist() == [[2.0, 2.0, -np.inf]]
