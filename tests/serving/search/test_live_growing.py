from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.search import live_growing, scann_index
from serving.search.index import search_rows
from serving.search.live_growing import ENOUGH, LiveGrowingIndex

WIDTH, FEW, K = 8, 1000, 100


def vectors(n: int, *, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


QUERIES = vectors(ENOUGH, seed=1)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> LiveGrowingIndex:
    """800 vectors were published, which are scored; from 1,000 on there is a tree."""
    monkeypatch.setattr(live_growing, "FEWEST_FOR_TREE", FEW)
    monkeypatch.setattr(scann_index, "FEWEST_FOR_TREE", FEW)
    return LiveGrowingIndex(vectors(800, seed=2))


def grow(index: LiveGrowingIndex, n: int, *, seed: int) -> NDArray[np.float32]:
    added = vectors(n, seed=seed)
    index.put(np.arange(800, 800 + n), added)
    return added


def recall(index: LiveGrowingIndex, known: NDArray[np.float32], gone: list[int]) -> float:
    present = np.ones(len(known), dtype=np.bool_)
    present[gone] = False
    true, _ = search_rows(known, QUERIES, K, present=present)
    found, scores = index.search(QUERIES, K)
    assert not np.isin(found, gone).any()
    np.testing.assert_allclose(
        scores, np.take_along_axis(QUERIES @ known.T, found, axis=1), rtol=1e-4, atol=1e-4
    )
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]))


def test_many_that_are_put_in_get_a_tree_that_finds_what_an_exact_search_does(
    index: LiveGrowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_growing, "SHARES", (0.02, 1.0))
    known = np.concatenate([vectors(800, seed=2), grow(index, 1500, seed=3)])
    assert recall(index, known, []) == 1.0  # the queries that a tree is judged by; one is begun
    known[7] = vectors(1, seed=4)  # while it is being built
    index.put(np.array([7]), known[[7]])
    index.remove(np.array([9]))
    index.settle()
    assert recall(index, known, [9]) >= 0.97
    assert index.has_tree
    index.remove(np.array([11, 2000]))
    known[9] = 0
    index.put(np.array([9]), known[[9]])
    assert index.size == len(known) - 2
    assert recall(index, known, [11, 2000]) >= 0.97


def test_equal_vectors_are_scored_once_and_all_of_them_found(index: LiveGrowingIndex) -> None:
    """What is put in has no vector of its id, and so often that of another."""
    added = vectors(30, seed=3)[np.arange(1500) % 30]
    known = np.concatenate([vectors(800, seed=2), added])
    index.put(np.arange(800, 2300), added)
    index.search(QUERIES, K)
    index.settle()
    index.search(QUERIES, K)
    assert index.has_tree
    known[900] = vectors(1, seed=4)
    index.put(np.array([900]), known[[900]])
    gone = [5, 830, 860]
    index.remove(np.array(gone))
    present = np.ones(len(known), dtype=np.bool_)
    present[gone] = False
    _, true = search_rows(known, QUERIES, 500, present=present)
    found, scores = index.search(QUERIES, 500)
    np.testing.assert_allclose(scores, true, rtol=1e-4, atol=1e-4)
    of_found = np.take_along_axis(QUERIES @ known.T, found, axis=1)
    np.testing.assert_allclose(scores, of_found, rtol=1e-4, atol=1e-4)
    assert all(len(set(rows)) == 500 and not set(gone) & set(rows) for rows in found.tolist())


def test_a_tree_is_good_where_some_vectors_are_much_longer(
    index: LiveGrowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what most queries look for."""
    monkeypatch.setattr(live_growing, "SHARES", (0.5,))
    added = vectors(3000, seed=3)
    added[::60] *= 20
    known = np.concatenate([vectors(800, seed=2), added])
    index.put(np.arange(800, 3800), added)
    index.search(QUERIES, K)
    index.settle()
    assert recall(index, known, []) >= 0.97
    assert index.has_tree
    known[3] *= 30  # longer than all
    index.put(np.array([3]), known[[3]])
    index.remove(np.array([860]))
    assert recall(index, known, [860]) >= 0.97


def test_a_tree_that_finds_too_little_is_not_used(
    index: LiveGrowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_growing, "SHARES", (0.02,))
    known = np.concatenate([vectors(800, seed=2), grow(index, 1500, seed=3)])
    index.search(QUERIES, K)
    index.settle()
    assert recall(index, known, []) == 1.0
    assert not index.has_tree


def test_what_was_published_to_be_scored_stays_so(index: LiveGrowingIndex) -> None:
    large = LiveGrowingIndex(vectors(2300, seed=5))
    for _ in range(3):
        large.search(QUERIES, K)
        large.settle()
    assert not large.has_tree
