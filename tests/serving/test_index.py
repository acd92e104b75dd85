from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.index import STRIDE, number_pairs


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_pairs_are_numbered_in_order_and_none_twice(pairs: list[tuple[int, int]]) -> None:
    queries, rows = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    expected = [query * STRIDE + row for query, row in sorted(set(pairs))]
    assert number_pairs((queries, rows)).tolist() == expected
