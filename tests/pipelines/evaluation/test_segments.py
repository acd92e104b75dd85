from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipelines.evaluation.segments import popularity_deciles


def test_equally_popular_items_fall_into_ten_equal_deciles() -> None:
    assert popularity_deciles(np.full(20, 3)).tolist() == [item // 2 for item in range(20)]


def test_without_interactions_every_item_is_least_popular() -> None:
    assert popularity_deciles(np.zeros(4, dtype=np.int64)).tolist() == [0, 0, 0, 0]


@given(popularity=hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 50)))
def test_deciles_grow_with_popularity_and_share_the_interactions(
    popularity: NDArray[np.int64],
) -> None:
    deciles = popularity_deciles(popularity)
    order = np.lexsort((np.arange(len(popularity)), popularity))
    assert (np.diff(deciles[order]) >= 0).all()
    for number in range(10):  # each ends at the item that takes it past its tenth
        below = popularity[deciles < number].sum()
        assert below >= number / 10 * popularity.sum() or not (deciles >= number).any()
        assert (below - popularity.max()) <= number / 10 * popularity.sum()
    assert deciles.max() <= 9
