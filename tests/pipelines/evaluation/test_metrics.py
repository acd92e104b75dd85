from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.evaluation import metrics
from pipelines.results import metric_names

# A user whose hits are at ranks 2 and 4 of 4 and who has 3 relevant items; one without a hit.
RELEVANT = np.array([[False, True, False, True], [False, False, False, False]])
N_RELEVANT = np.array([3, 2])


@pytest.mark.parametrize(("k", "expected"), [(1, 0.0), (2, 1 / 3), (4, 2 / 3), (9, 2 / 3)])
def test_recall_is_over_all_relevant_items(k: int, expected: float) -> None:
    np.testing.assert_allclose(metrics.recall(RELEVANT, N_RELEVANT, k=k), [expected, 0.0])


def test_ndcg_is_over_the_best_list_of_k() -> None:
    gain = 1 / math.log2(3)
    np.testing.assert_allclose(
        metrics.ndcg(RELEVANT, N_RELEVANT, k=2), [gain / (1 + 1 / math.log2(3)), 0.0]
    )
    gain += 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(metrics.ndcg(RELEVANT, N_RELEVANT, k=4), [gain / ideal, 0.0])


def test_hit_rate_and_reciprocal_rank_look_no_further_than_k() -> None:
    assert metrics.hit_rate(RELEVANT, k=1).tolist() == [0.0, 0.0]
    assert metrics.hit_rate(RELEVANT, k=2).tolist() == [1.0, 0.0]
    assert metrics.reciprocal_rank(RELEVANT, k=1).tolist() == [0.0, 0.0]
    assert metrics.reciprocal_rank(RELEVANT, k=4).tolist() == [0.5, 0.0]


def test_padding_is_neither_popular_nor_covered() -> None:
    ranked = np.array([[2, 0, -1], [-1, -1, -1]])
    popularity = np.array([4, 100, 8])
    assert metrics.popularity_of(ranked, popularity, k=3).tolist() == [6.0, 0.0]
    assert metrics.covered(ranked, 3, k=3).tolist() == [True, False, True]
    assert metrics.covered(ranked, 3, k=1).tolist() == [False, False, True]


def test_metric_names_are_those_of_the_figures() -> None:
    figures = metrics.per_user(
        np.array([[1]]),
        np.array([[True]]),
        n_relevant=np.array([1]),
        popularity=np.array([0, 7]),
        k=20,
    )
    assert {name: float(values[0]) for name, values in figures.items()} == {
        "recall@20": 1.0,
        "ndcg@20": 1.0,
        "hit_rate@20": 1.0,
        "mrr@20": 1.0,
        "popularity@20": 7.0,
    }
    assert set(metric_names([20])) == {*figures, "coverage@20"}


@st.composite
def judged_lists(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    n_users, k_max = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    flags = draw(st.lists(st.booleans(), min_size=n_users * k_max, max_size=n_users * k_max))
    relevant = np.array(flags).reshape(n_users, k_max)
    missed = draw(st.lists(st.integers(0, 3), min_size=n_users, max_size=n_users))
    return relevant, np.maximum(relevant.sum(axis=1) + np.array(missed), 1)


@given(judged=judged_lists(), k=st.integers(1, 10))
def test_accuracy_lies_between_0_and_1_and_a_hit_makes_it_positive(
    judged: tuple[NDArray[np.bool_], NDArray[np.int64]], k: int
) -> None:
    relevant, n_relevant = judged
    hit = metrics.hit_rate(relevant, k=k) > 0
    for values in (
        metrics.recall(relevant, n_relevant, k=k),
        metrics.ndcg(relevant, n_relevant, k=k),
        metrics.reciprocal_rank(relevant, k=k),
    ):
        np.testing.assert_array_equal(values > 0, hit)
        assert values.max() <= 1 + 1e-12


@given(n_relevant=st.integers(1, 12), k=st.integers(1, 12))
def test_a_perfect_list_has_ndcg_1(n_relevant: int, k: int) -> None:
    relevant = np.arange(12)[np.newaxis] < n_relevant
    np.testing.assert_allclose(metrics.ndcg(relevant, np.array([n_relevant]), k=k), 1.0)
