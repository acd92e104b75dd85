from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from pipelines.behaviours import Behaviour
from pipelines.data.blocks import (
    PARTS,
    HeldInteractions,
    Interactions,
    Part,
    all_blocks,
    every_positive,
    first_times,
    left_out,
    sample_users,
)
from pipelines.data.events import Events
from pipelines.data.store_blocks import (
    SCHEMA,
    StoredInteractions,
    block_file,
    finish_blocks,
    write_block,
)
from tests.examples import examples

RATED = {
    "liked": Behaviour(role="target"),
    "disliked": Behaviour(role="negative"),
}
Triples = list[tuple[int, int, int]]
"""User row, item row and code of the part; a user's in order of time."""

N_USERS, N_ITEMS = 7, 5
CASES = [parts for n in (1, 2, 3) for parts in (PARTS[:n], PARTS[-n:])]

pairs = st.lists(
    st.tuples(
        st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(0, len(PARTS) - 1)
    ),
    unique_by=lambda triple: triple[:2],
    max_size=30,
)


def store(
    folder: Path,
    triples: Triples,
    block_of_user: list[int],
    *,
    n_blocks: int,
    judged: Container[int] = (),
) -> None:
    """Write blocks whose weights and times are the places of the pairs; some are judged only."""
    folder.mkdir(exist_ok=True)
    for number in range(n_blocks):
        mine = [(*t, w) for w, t in enumerate(triples, 1) if block_of_user[t[0]] == number]
        mine.sort(key=lambda row: row[0])
        user, item, part, weight = zip(*mine, strict=True) if mine else ((), (), (), ())
        positive = [i not in judged for i in item]
        codes = [int(not flag) for flag in positive]
        columns: tuple[Iterable[Any], ...] = (
            *(user, item, weight, part),
            *(map(float, weight), codes, [0] * len(user), positive),
        )
        arrays = [
            pa.array(list(values), kind) for values, kind in zip(columns, SCHEMA.types, strict=True)
        ]
        write_block(block_file(folder, number), pa.table(arrays, schema=SCHEMA))
    finish_blocks(
        folder,
        block_of_user=np.array(block_of_user, dtype=np.int32),
        n_items=N_ITEMS,
        n_blocks=n_blocks,
        has_times=True,
        behaviours=RATED,
    )


def held(
    triples: Triples, parts: tuple[Part, ...], *, judged: Container[int] = ()
) -> HeldInteractions:
    """The same in memory."""
    seen = _matrix(triples, parts, range(N_ITEMS)).tocoo()
    positive = np.array([item not in judged for item in seen.coords[1]], dtype=np.bool_)
    events = Events(
        users=seen.coords[0].astype(np.int64),
        items=seen.coords[1].astype(np.int64),
        times=seen.data.astype(np.float64),
        weights=seen.data,
        behaviours=(~positive).astype(np.int8),
        positive=positive,
        moments=np.zeros(seen.nnz, dtype=np.int32),
    )
    matrix = _matrix(triples, parts, [item for item in range(N_ITEMS) if item not in judged])
    return HeldInteractions(
        matrix,
        has_times=True,
        times=matrix.data.astype(np.float64),
        events=events if judged else None,
        behaviours=RATED,
    )


def _matrix(
    triples: Triples, parts: tuple[Part, ...], items_of: Container[int]
) -> sparse.csr_array:
    codes = [PARTS.index(part) for part in parts]
    kept = [(u, i, w) for w, (u, i, code) in enumerate(triples, 1) if code in codes]
    kept = [row for row in kept if row[1] in items_of]
    kept.sort(key=lambda row: row[0])
    starts = np.searchsorted([u for u, _, _ in kept], np.arange(N_USERS + 1))
    weights = np.array([w for _, _, w in kept], dtype=np.float32)
    items = np.array([i for _, i, _ in kept], dtype=np.int64)
    return sparse.csr_array((weights, items, starts), shape=(N_USERS, N_ITEMS))


def entries(matrix: sparse.csr_array) -> list[tuple[list[int], list[float]]]:
    """Each row's items and weights, in their order."""
    rows = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    return [(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist()) for a, b in rows]


@given(
    triples=pairs,
    block_of_user=st.lists(st.integers(0, 2), min_size=N_USERS, max_size=N_USERS),
    asked=st.sets(st.integers(0, N_USERS - 1)),
    parts=st.sampled_from(CASES),
    judged=st.sampled_from([(), (0, 3)]),
)
@example(
    triples=[(1, 0, 0), (1, 3, 0), (3, 3, 0), (3, 0, 0)],
    block_of_user=[0, 0, 0, 1, 0, 0, 0],
    asked=set(),
    parts=("train",),
    judged=(0, 3),
)
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stored_interactions_are_those_in_memory(
    tmp_path: Path,
    triples: Triples,
    block_of_user: list[int],
    asked: set[int],
    parts: tuple[Part, ...],
    judged: tuple[int, ...],
) -> None:
    store(tmp_path, triples, block_of_user, n_blocks=3, judged=judged)
    stored = StoredInteractions(tmp_path, parts)
    expected = held(triples, parts, judged=judged)
    assert (stored.shape, stored.has_times) == (expected.shape, True)
    np.testing.assert_array_equal(first_times(stored), first_times(expected))
    np.testing.assert_array_equal(stored.user_counts, expected.user_counts)
    np.testing.assert_array_equal(stored.item_counts, expected.item_counts)
    users = np.array(sorted(asked), dtype=np.int64)
    assert entries(stored.of(users)) == entries(expected.of(users))
    assert entries(every_positive(stored)) == entries(expected.matrix)
    known = _matrix(triples, parts, range(N_ITEMS)).toarray()[users] > 0
    for interactions in (stored, expected):
        assert (interactions.seen_of(users).toarray()[users] == known).all()
        positives = left_out(interactions, users, what="positives")
        np.testing.assert_array_equal(positives.toarray(), expected.of(users).toarray())
    found = []
    for number, block in enumerate(all_blocks(stored)):
        assert set(stored.block_of_user[block.users]) <= {number}
        assert entries(block.matrix) == entries(expected.matrix[block.users])
        down, everyone = block.turned_down, expected.block(0).turned_down
        assert (down is None) == (block.events is None or not (~block.events.positive).any())
        if down is not None and everyone is not None:
            assert entries(down) == entries(everyone[block.users])
            low = [item for item in range(N_ITEMS) if item not in judged]
            assert not np.isin(down.indices, low).any()
        found += block.users.tolist()
    assert sorted(found) == list(range(N_USERS))


@pytest.fixture(params=["held", "stored"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Triples], Interactions]:
    def make(triples: Triples) -> Interactions:
        if request.param == "held":
            return held(triples, ("train",))
        store(tmp_path, triples, [0, 1, 0, 1, 0, 1, 0], n_blocks=2)
        return StoredInteractions(tmp_path, ("train",))

    return make


def test_a_sample_has_all_positives_of_so_many_users(
    make: Callable[[Triples], Interactions],
) -> None:
    triples = [(user, item, 0) for user in (0, 2, 3, 6) for item in range(user % 3 + 1)]
    given_ = make(triples)
    whole = every_positive(given_)
    for limit in (1, 3):
        sample = sample_users(given_, limit=limit, seed=4)
        users = np.flatnonzero(np.diff(sample.indptr))
        assert len(users) == limit
        assert sample.shape == whole.shape
        np.testing.assert_array_equal(sample.toarray()[users], whole.toarray()[users])
        assert entries(sample) == entries(sample_users(given_, limit=limit, seed=4))
    assert entries(sample_users(given_, limit=4, seed=4)) == entries(whole)
