"""Every live index against a dictionary of rows and vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.search.equal_vectors import Places
from serving.search.live_index import LiveExactIndex, LiveIndex, LiveScannIndex
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannIndex, ScannSettings, Storage
from serving.search.shells import Shell, Shells
from tests.examples import examples

SIZE, WIDTH = 64, 4
ALL_LEAVES = ScannSettings(num_leaves=4, leaves_to_search=4, reorder=200, recall_k=100)
EVERY = ScannSettings(num_leaves=None)
VECTORS = np.random.default_rng(100).normal(size=(SIZE, WIDTH)).clip(-1, 1).astype(np.float32)
VECTORS[40:60] = VECTORS[3]
QUERIES = np.random.default_rng(2).normal(size=(3, WIDTH)).astype(np.float32)


def live_scann(storage: Storage) -> LiveIndex:
    changed = dataclasses.replace(ALL_LEAVES, storage=storage)
    return LiveScannIndex(ScannIndex.build(VECTORS, changed))


def live_shells(vectors: NDArray[np.float32] = VECTORS, places: Places | None = None) -> LiveIndex:
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(-lengths)
    shells = []
    for rows, how in zip(np.split(order, [8, 26]), [EVERY, ALL_LEAVES, ALL_LEAVES], strict=True):
        shells.append(Shell(ScannIndex.build(vectors[rows], how), rows, float(lengths[rows[0]])))
    return open_shells(Shells(tuple(shells), places))


def live_places() -> LiveIndex:
    places = Places.of(VECTORS)
    assert places is not None
    return live_shells(VECTORS[places.rows[places.starts[:-1]]], places)


INDEXES: dict[str, Callable[[], LiveIndex]] = {
    "exact": lambda: LiveExactIndex(VECTORS),
    "shells": lambda: live_shells(),  # noqa: PLW0108 - its type has no arguments
    "equal vectors": live_places,
} | {storage: partial(live_scann, storage) for storage in get_args(Storage)}

OFF = {
    "exact": 1e-5,
    "shells": 1e-5,
    "equal vectors": 1e-5,
    "float32": 1e-5,
    "bfloat16": 0.03,
    "int8": 0.03,
}
"""How far a score may be off; most are between -3 and 3."""


def vectors(seed: int, n: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).clip(-1, 1).astype(np.float32)


def check(
    index: LiveIndex, expected: dict[int, NDArray[np.float32]], *, k: int, off: float
) -> None:
    present = np.array(sorted(expected))
    scores = QUERIES @ np.stack([expected[row] for row in present]).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    rows, found = index.search(QUERIES, k)
    assert index.size == len(expected)
    np.testing.assert_allclose(found, np.take_along_axis(scores, order, axis=1), atol=off)
    received = np.take_along_axis(scores, np.searchsorted(present, rows), axis=1)
    np.testing.assert_allclose(received, found, atol=off)
    assert np.isin(rows, present).all()
    assert all(len(set(row)) == len(row) for row in rows.tolist())


@pytest.mark.parametrize("kind", INDEXES)
@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, SIZE - 1), unique=True, max_size=5)),
        max_size=12,
    )
)
def test_after_any_changes_an_index_finds_what_is_in_it(
    kind: str, steps: list[tuple[bool, list[int]]]
) -> None:
    index = INDEXES[kind]()
    expected = dict(enumerate(VECTORS))
    top = SIZE
    for number, (is_removal, some) in enumerate(steps):
        if is_removal:
            index.remove(np.array(some, dtype=np.int64))
            for row in some:
                expected.pop(row, None)
        else:
            rows = np.array([*some, top, top + 1], dtype=np.int64)
            top += 2
            index.put(rows, vectors(number, len(rows)))
            expected |= dict(zip(rows.tolist(), vectors(number, len(rows)), strict=True))
        check(index, expected, k=7, off=OFF[kind])
    check(index, expected, k=10_000, off=OFF[kind])


@pytest.mark.parametrize("kind", INDEXES)
def test_the_vectors_that_were_given_are_left_as_they_are(kind: str) -> None:
    before = VECTORS.copy()
    index = INDEXES[kind]()
    index.put(np.array([0, SIZE]), vectors(0, 2))
    index.remove(np.array([1]))
    np.testing.assert_array_equal(VECTORS, before)


@pytest.mark.parametrize("kind", INDEXES)
def test_nothing_changes_nothing(kind: str) -> None:
    index = INDEXES[kind]()
    nothing = np.empty(0, dtype=np.int64)
    index.put(nothing, vectors(0, 0))
    index.remove(nothing)
    index.remove(np.array([3]))
    index.remove(np.array([3]))
    assert index.size == SIZE - 1
