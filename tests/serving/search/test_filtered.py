"""Filtered search, by every way it takes, against scoring everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.search import filtered as module
from serving.search.filtered import search_among
from serving.search.index import ExactIndex, Index
from serving.search.scann_index import ScannIndex, ScannSettings
from tests.examples import examples
from towers.directions import DIRECTIONS

SIZE, N = 3000, 4
TREE = ScannSettings(num_leaves=50, leaves_to_search=4, reorder=60, recall_k=20)
RANDOM = np.random.default_rng(3)
VECTORS = RANDOM.normal(size=(SIZE, 9)).astype(np.float32)
QUERIES = RANDOM.normal(size=(N, 9)).astype(np.float32)
NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.fixture(scope="module", params=["exact", "scann"])
def index(request: pytest.FixtureRequest) -> Index:
    return ExactIndex(VECTORS) if request.param == "exact" else ScannIndex.build(VECTORS, TREE)


def brute_force(
    query: int, k: int, matching: NDArray[np.int64], unwanted: NDArray[np.int64]
) -> list[int]:
    rows = np.setdiff1d(matching, unwanted)
    scores = VECTORS[rows] @ QUERIES[query]
    best: list[int] = rows[np.argsort(-scores, kind="stable")][:k].tolist()
    return best


@pytest.mark.parametrize("deep", [False, True])
@settings(max_examples=examples(60), deadline=None)
@given(data=st.data(), share=st.sampled_from([0.0, 0.001, 0.02, 0.3, 0.9, 1.0]))
def test_as_many_as_match_and_the_best_of_them(
    index: Index, deep: bool, data: st.DataObject, share: float
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    matching = np.flatnonzero(random.random(SIZE) < share)
    k = data.draw(st.lists(st.integers(1, 80), min_size=N, max_size=N))
    left_out = [random.choice(SIZE, data.draw(st.sampled_from([0, 3, 200]))) for _ in range(N)]
    queries = np.repeat(np.arange(N), [len(rows) for rows in left_out])
    with pytest.MonkeyPatch.context() as patch:
        if deep:
            patch.setattr(module, "FEW", 0)
            patch.setattr(module, "DEEPEST", 0.5)
        rows, scores = search_among(
            index,
            DIRECTIONS["u2i"],
            VECTORS,
            QUERIES,
            k=np.array(k),
            width=max(k),
            matching=matching,
            unwanted=(queries, np.concatenate(left_out).astype(np.int64)),
        )
    assert rows.shape == scores.shape == (N, max(k))
    for query in range(N):
        expected = brute_force(query, k[query], matching, left_out[query])
        found = rows[query][rows[query] >= 0].tolist()
        assert len(found) == len(expected)
        assert set(found) <= set(matching) - set(left_out[query])
        assert (rows[query, len(found) :] == -1).all()
        assert np.isneginf(scores[query, len(found) :]).all()
        np.testing.assert_allclose(
            scores[query, : len(found)], VECTORS[found] @ QUERIES[query], rtol=1e-4, atol=1e-5
        )
        if not deep or isinstance(index, ExactIndex):
            assert found == expected


def test_a_deep_search_finds_most_of_the_best() -> None:
    index = ScannIndex.build(VECTORS, TREE)
    matching = np.arange(0, SIZE, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", 0)
        patch.setattr(module, "DEEPEST", 0.5)
        rows, _ = search_among(
            index, DIRECTIONS["u2i"], VECTORS, QUERIES,
            k=np.full(N, 20), width=20, matching=matching, unwanted=NO_PAIRS,
        )  # fmt: skip
    expected = [brute_force(query, 20, matching, np.empty(0, np.int64)) for query in range(N)]
    shares = [np.isin(found, true).mean() for found, true in zip(rows, expected, strict=True)]
    assert np.mean(shares) > 0.5
