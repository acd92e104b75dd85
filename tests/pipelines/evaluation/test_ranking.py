from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipelines.evaluation.ranking import rank_items
from towers.errors import TrainingError

# Few distinct scores, so that ties are common; -inf is a score that takes its item out.
TIED_SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 70)),
    elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0]),
)


def nothing(shape: tuple[int, ...]) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.zeros(shape))


def sorted_fully(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The same lists from a stable sort of everything."""
    k = min(k, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)


@given(scores=TIED_SCORES, k=st.integers(1, 80))
def test_ranks_as_a_full_sort_does(scores: NDArray[np.float32], k: int) -> None:
    ranked = rank_items(scores, k, exclude=nothing(scores.shape))
    np.testing.assert_array_equal(ranked, sorted_fully(scores, k))


@given(scores=TIED_SCORES, k=st.integers(1, 80), data=st.data())
def test_excluded_items_never_appear(
    scores: NDArray[np.float32], k: int, data: st.DataObject
) -> None:
    excluded = data.draw(hnp.arrays(np.bool_, scores.shape))
    before = scores.copy()
    ranked = rank_items(scores, k, exclude=scipy.sparse.csr_array(excluded))
    expected = sorted_fully(np.where(excluded, -np.inf, scores).astype(np.float32), k)
    np.testing.assert_array_equal(ranked, expected)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("order", ["random", "ascending", "descending", "one value", "strided"])
def test_many_items_in_any_order(order: str, k: int) -> None:
    random = np.random.default_rng(3)
    scores = random.standard_normal((5, 5000)).astype(np.float32)
    if order == "ascending":
        scores = np.sort(scores, axis=1)
    elif order == "descending":
        scores = -np.sort(-scores, axis=1)
    elif order == "one value":
        scores = np.broadcast_to(np.float32(1.5), scores.shape)
    elif order == "strided":
        scores = np.asfortranarray(scores)
    ranked = rank_items(scores, k, exclude=nothing(scores.shape))
    np.testing.assert_array_equal(ranked, sorted_fully(scores, k))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_scores_without_an_order_even_where_excluded(bad: float) -> None:
    scores = np.zeros((2, 6), dtype=np.float32)
    scores[1, 4] = bad
    with pytest.raises(TrainingError, match="user 1 of the batch and item row 4"):
        rank_items(scores, 3, exclude=scipy.sparse.csr_array(np.isfinite(scores) == 0))
