from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.search.growing_array import GrowingArray


@given(data=st.data(), start=hnp.arrays(np.int64, st.integers(0, 5)))
def test_it_is_a_list_that_is_appended_and_written_to(
    data: st.DataObject, start: NDArray[np.int64]
) -> None:
    growing, expected, given_ = GrowingArray(start), start.tolist(), start.copy()
    for value in data.draw(st.lists(st.integers(0, 9), max_size=20)):
        old = data.draw(st.lists(st.integers(0, max(len(expected) - 1, 0)), unique=True))
        rows = [row for row in old if row < len(expected)] + [len(expected)]
        growing.put(np.array(rows), value)
        expected.append(value)
        for row in rows:
            expected[row] = value
        assert growing.values.tolist() == expected
        assert len(growing) == len(expected)
    assert start.tolist() == given_.tolist()


def test_rows_of_several_numbers() -> None:
    growing = GrowingArray(np.zeros((2, 3), np.float32))
    growing.put(np.array([2, 1]), np.array([[1, 2, 3], [4, 5, 6]]))
    assert growing.values.tolist() == [[0, 0, 0], [4, 5, 6], [1, 2, 3]]
    growing.put(np.empty(0, np.int64), np.empty((0, 3)))
    assert len(growing) == 3
