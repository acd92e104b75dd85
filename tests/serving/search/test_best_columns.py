from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.search.best_columns import best_columns

# Few distinct scores, so that ties are common; -inf is a score that takes its column out.
TIED_SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(0, 70)),
    elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0]),
)


@given(scores=TIED_SCORES, k=st.integers(1, 80))
def test_same_as_a_stable_sort_of_everything(scores: NDArray[np.float32], k: int) -> None:
    columns, values = best_columns(scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, axis=1)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(columns, np.where(np.isneginf(expected), -1, order))
