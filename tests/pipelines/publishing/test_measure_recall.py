from __future__ import annotations

import numpy as np

from pipelines.publishing.measure_recall import exact_scores, measure_recall

RANDOM = np.random.default_rng(9)


def test_recall_counts_neighbours_and_those_tied_with_the_last() -> None:
    exact = (np.array([[0, 1, 2], [3, 4, 5]]), np.array([[9, 5, 5], [8, 7, 6]], np.float32))
    found = (np.array([[0, 2, 7], [3, 6, -1]]), np.array([[9, 5, 5], [8, 5, -np.inf]], np.float32))
    np.testing.assert_allclose(measure_recall(exact, found), [1, 1 / 3])


def test_exact_scores_are_inner_products() -> None:
    vectors, queries = (RANDOM.normal(size=(n, 8)).astype(np.float32) for n in (9, 2))
    rows = np.array([[3, 1, -1], [0, -1, -1]])
    scores = exact_scores(vectors, queries, rows)
    assert np.isneginf(scores[rows < 0]).all()
    expected = [vectors[3] @ queries[0], vectors[1] @ queries[0], vectors[0] @ queries[1]]
    np.testing.assert_allclose(scores[rows >= 0], expected, rtol=1e-5)
