from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from towers import directions
from towers.directions import DIRECTIONS

RANDOM = np.random.default_rng(2)
USERS = np.c_[np.ones(20), RANDOM.normal(size=(20, 4))].astype(np.float32)
ITEMS = RANDOM.normal(size=(30, 5)).astype(np.float32)
SOME_VECTORS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 5)),
    elements=st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False),
)
DOUBLES = hnp.arrays(np.float64, 4, elements=st.floats(-9, 9, allow_subnormal=False))


def scores(name: str) -> NDArray[np.float32]:
    """The direction's score of every source (rows) and target (columns)."""
    chosen = DIRECTIONS[name]
    vectors = {"user": USERS, "item": ITEMS}
    return chosen.score(vectors[chosen.source], vectors[chosen.target])


def test_names_say_source_and_target() -> None:
    assert list(DIRECTIONS) == ["u2i", "i2i", "u2u", "i2u"]
    assert {name: chosen.name for name, chosen in DIRECTIONS.items()} == {n: n for n in DIRECTIONS}
    assert [n for n, chosen in DIRECTIONS.items() if chosen.is_similarity] == ["i2i", "u2u"]


def test_u2i_and_i2u_score_a_pair_by_the_same_match_score() -> None:
    expected = USERS.astype(np.float64) @ ITEMS.T.astype(np.float64)
    np.testing.assert_allclose(scores("u2i"), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores("i2u"), expected.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "vectors"), [("i2i", ITEMS), ("u2u", USERS)])
def test_similarity_is_the_cosine_of_the_pooled_parts(
    name: str, vectors: NDArray[np.float32]
) -> None:
    pooled = vectors[:, 1:].astype(np.float64)
    norms = np.linalg.norm(pooled, axis=1)
    expected = pooled @ pooled.T / np.outer(norms, norms)
    np.testing.assert_allclose(scores(name), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DIRECTIONS)
@given(vectors=SOME_VECTORS)
def test_the_graph_has_the_geometry_of_the_arrays(name: str, vectors: NDArray[np.float32]) -> None:
    chosen, tensor = DIRECTIONS[name], tf.constant(vectors)
    projected, offset = chosen.project(vectors), chosen.offset(vectors)
    assert projected.dtype == offset.dtype == np.float32
    np.testing.assert_allclose(
        projected, chosen.project_tensor(tensor).numpy(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(offset, chosen.offset_tensor(tensor).numpy())


@given(vectors=SOME_VECTORS)
def test_unit_vectors_whatever_the_scale_and_zero_stays_zero(vectors: NDArray[np.float32]) -> None:
    unit = DIRECTIONS["i2i"].project(vectors)
    zero = (vectors[:, 1:] == 0).all(axis=1)
    assert (unit[zero] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(unit[~zero], axis=1), 1, rtol=1e-5)


@given(user=DOUBLES, item=DOUBLES)
def test_scores_in_float64_are_those_of_the_definition(
    user: NDArray[np.float64], item: NDArray[np.float64]
) -> None:
    match = float(user[0] * item[0] + user[1:] @ item[1:])
    received = DIRECTIONS["u2i"].score(user[np.newaxis], item[np.newaxis])
    assert received.dtype == np.float64
    assert received[0, 0] == pytest.approx(match, abs=1e-9)
    user[0] = 1.0  # the first coordinate of a user's vector
    match = float(item[0] + user[1:] @ item[1:])
    assert DIRECTIONS["i2u"].score(item[np.newaxis], user[np.newaxis])[0, 0] == (
        pytest.approx(match, abs=1e-9)
    )


def test_many_vectors_are_brought_to_length_one_block_by_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = DIRECTIONS["i2i"].project(ITEMS)
    monkeypatch.setattr(directions, "BLOCK", 7)
    np.testing.assert_array_equal(DIRECTIONS["i2i"].project(ITEMS), at_once)
