from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.publishing import tune_index as tuning
from pipelines.publishing.tune_index import (
    REORDER_FACTORS,
    exact_scores,
    measure_recall,
    tune_index,
)
from serving.search.index import ExactIndex
from serving.search.scann_index import Storage, choose_settings
from towers.errors import RecallGateError

RANDOM = np.random.default_rng(9)
STORAGES = get_args(Storage)
CENTRES = RANDOM.normal(size=(100, 8))


def near_centres(n: int) -> NDArray[np.float32]:
    noise = 0.7 * RANDOM.normal(size=(n, 8))
    return (CENTRES[RANDOM.integers(0, 100, n)] + noise).astype(np.float32)


VECTORS, QUERIES = near_centres(20_000), near_centres(200)


def test_few_vectors_need_no_tree() -> None:
    assert choose_settings(19_999).num_leaves is None
    assert choose_settings(20_000, recall_k=5000).num_leaves is None
    few = VECTORS[:500]
    exact = ExactIndex(few).search(QUERIES, 10)
    index, tried = tune_index(few, QUERIES, exact=exact, recall=1.0, storage="int8")
    assert index.is_exact
    assert tried == []


def test_tree_grows_with_the_root_of_the_number_of_vectors() -> None:
    assert [choose_settings(n).num_leaves for n in (20_000, 1_000_000)] == [282, 2000]


@pytest.mark.parametrize("storage", STORAGES)
def test_the_chosen_setting_finds_enough_and_fewer_leaves_did_not(storage: Storage) -> None:
    exact = ExactIndex(VECTORS).search(QUERIES, 50)
    index, tried = tune_index(VECTORS, QUERIES, exact=exact, recall=0.9, storage=storage)
    chosen = [setting for setting in tried if setting["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["recall"] >= 0.9
    assert index.settings.leaves_to_search == chosen[0]["leaves_to_search"]
    assert index.settings.reorder == chosen[0]["reorder"]
    assert index.settings.recall_k == 50
    *too_few, fewest = (s for s in tried if s["reorder"] == 50 * REORDER_FACTORS[-1])
    assert too_few
    assert all(setting["recall"] < 0.93 for setting in too_few)
    assert chosen[0]["leaves_to_search"] >= fewest["leaves_to_search"]
    assert chosen[0]["queries_per_second"] >= fewest["queries_per_second"]
    rows, _ = index.search(QUERIES, 50)
    found = measure_recall(exact, (rows, exact_scores(VECTORS, QUERIES, rows)))
    assert found.mean() >= 0.9
    assert index.settings.storage == storage


def test_gate_says_what_was_reached_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "REORDER_FACTORS", (1,))
    with pytest.raises(RecallGateError, match=r"recall@50 of 1.0 .* reached 0\.\d+ .*; lower"):
        tune_index(VECTORS, QUERIES, exact=ExactIndex(VECTORS).search(QUERIES, 50), recall=1.0)


def test_more_are_reordered_before_an_index_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "REORDER_FACTORS", (1,))
    monkeypatch.setattr(tuning, "LAST_FACTORS", (2, 24, 32))
    exact = ExactIndex(VECTORS).search(QUERIES, 50)
    index, tried = tune_index(VECTORS, QUERIES, exact=exact, recall=0.99)
    settings = index.settings
    assert (settings.leaves_to_search, settings.reorder) == (settings.num_leaves, 50 * 24)
    assert [setting["reorder"] for setting in tried if setting["recall"] >= 0.99] == [50 * 24]
    monkeypatch.setattr(tuning, "LAST_FACTORS", (2, 26))  # more than a sixteenth of the vectors
    with pytest.raises(RecallGateError, match="and 100 vectors reordered"):
        tune_index(VECTORS, QUERIES, exact=exact, recall=0.99)


def test_recall_counts_neighbours_and_those_tied_with_the_last() -> None:
    exact = (np.array([[0, 1, 2], [3, 4, 5]]), np.array([[9, 5, 5], [8, 7, 6]], np.float32))
    found = (np.array([[0, 2, 7], [3, 6, -1]]), np.array([[9, 5, 5], [8, 5, -np.inf]], np.float32))
    np.testing.assert_allclose(measure_recall(exact, found), [1, 1 / 3])


@pytest.mark.parametrize("storage", STORAGES)
def test_equal_vectors_are_as_good_as_each_other_however_they_are_stored(storage: Storage) -> None:
    vectors = np.repeat(VECTORS[:400], 50, axis=0)
    exact = ExactIndex(vectors).search(QUERIES, 70)
    index, tried = tune_index(vectors, QUERIES, exact=exact, recall=0.9, storage=storage)
    rows, scores = index.search(QUERIES, 70)
    recall = measure_recall(exact, (rows, exact_scores(vectors, QUERIES, rows))).mean()
    (chosen,) = (setting for setting in tried if setting["chosen"])
    assert chosen["recall"] == pytest.approx(recall)
    if storage != "float32":  # by the stored scores ties could not be told
        assert measure_recall(exact, (rows, scores)).mean() < recall - 0.01


def test_exact_scores_are_inner_products() -> None:
    rows = np.array([[3, 1, -1], [0, -1, -1]])
    scores = exact_scores(VECTORS, QUERIES[:2], rows)
    assert np.isneginf(scores[rows < 0]).all()
    expected = [VECTORS[3] @ QUERIES[0], VECTORS[1] @ QUERIES[0], VECTORS[0] @ QUERIES[1]]
    np.testing.assert_allclose(scores[rows >= 0], expected, rtol=1e-5)
