from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.search.equal_vectors import LivePlaces, Places
from serving.search.live_index import LiveExactIndex

SMALL = st.integers(-1, 1).map(float)


def test_few_equal_vectors_share_no_place() -> None:
    vectors = np.arange(200, dtype=np.float32).reshape(100, 2)
    vectors[1:5] = vectors[0]
    assert Places.of(vectors) is None
    vectors[1:6] = vectors[0]
    places = Places.of(vectors)
    assert places is not None
    assert len(places.starts) == 96


@given(vectors=hnp.arrays(np.float32, st.tuples(st.integers(20, 40), st.just(2)), elements=SMALL))
def test_the_rows_of_a_place_are_those_with_its_vector(vectors: NDArray[np.float32]) -> None:
    places = Places.of(vectors)
    assert places is not None
    at = [places.rows[a:b] for a, b in zip(places.starts, places.starts[1:], strict=False)]
    assert sorted(np.concatenate(at).tolist()) == list(range(len(vectors)))
    for rows in at:
        same = (vectors == vectors[rows[0]]).all(axis=1)
        assert rows.tolist() == np.flatnonzero(same).tolist()
    assert (places.of_rows(places.rows) == np.repeat(np.arange(len(at)), list(map(len, at)))).all()


@given(
    vectors=hnp.arrays(np.float32, (30, 2), elements=SMALL),
    queries=hnp.arrays(np.float32, (3, 2), elements=SMALL),
    k=st.integers(1, 40),
)
def test_all_rows_of_a_place_are_found_with_its_score(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> None:
    places = Places.of(vectors)
    assert places is not None
    distinct = vectors[places.rows[places.starts[:-1]]]
    rows, scores = LivePlaces(LiveExactIndex(distinct), places).search(queries, k)
    every = queries @ vectors.T
    np.testing.assert_array_equal(scores, -np.sort(-every, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(every, rows, axis=1), scores)
    assert all(len(set(found)) == len(found) for found in rows.tolist())
