from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from towers import least_squares
from towers.least_squares import Content, Half, Weights, objective, solve_rows, sweeps

Floats = NDArray[np.float64]


class World:
    """Random positives, features on both sides, and vectors, all in float64."""

    def __init__(self, seed: int, *, n_users: int, n_items: int, k: int, density: float) -> None:
        rng = np.random.default_rng(seed)
        there = rng.random((n_users, n_items)) < density
        self.c = np.where(there, rng.uniform(0.2, 3.0, there.shape), 0.0)
        self.weights = Weights(unobserved=rng.uniform(0.01, 1.0), penalty=rng.uniform(0.01, 0.5))
        self.users, self.items = (
            self._half(rng, c, k=k) for c in (self.c, np.ascontiguousarray(self.c.T))
        )

    def _half(self, rng: np.random.Generator, c: Floats, *, k: int) -> Half:
        bags = rng.standard_normal((len(c), 3)) * (rng.random((len(c), 3)) < 0.5)
        content = Content(sparse.csr_array(bags), rng.standard_normal((len(c), 2)))
        vectors = rng.standard_normal((len(c), k))
        return Half.start(sparse.csr_array(c), content, vectors, self.weights)


worlds = st.builds(
    World,
    st.integers(0, 2**32 - 1),
    n_users=st.integers(1, 9),
    n_items=st.integers(1, 9),
    k=st.integers(1, 5),
    density=st.floats(0.05, 1.0),
)


def x_of(half: Half) -> Floats:
    return np.concatenate([half.content.bags.toarray(), half.content.dense], axis=1)


def naive_objective(world: World, users: Half, items: Half) -> float:
    """The equation of the module, as it stands."""
    scores = users.vectors @ items.vectors.T
    both = np.outer(users.is_there, items.is_there)
    total = (world.c * (1 - scores) ** 2).sum() + world.weights.unobserved * (
        both * scores**2
    ).sum()
    for half, other in ((users, items), (items, users)):
        n = half.positives.toarray().sum(axis=1)
        pays = world.weights.penalty * (n + world.weights.unobserved * other.is_there.sum())
        own = half.vectors - x_of(half) @ half.learned
        total += (pays[:, np.newaxis] * own**2)[half.is_there].sum()
        mean = pays[half.is_there].mean() if half.is_there.any() else 1.0
        total += mean * (half.learned**2).sum()
    return float(total)


@given(worlds)
@settings(deadline=None)
def test_each_vector_is_the_dense_least_squares_solution(world: World) -> None:
    """By rows for each other, with square roots of weights, of the penalty too."""
    users, items = world.users, world.items
    learned = np.random.default_rng(0).standard_normal(users.learned.shape)
    prior = x_of(users) @ learned
    found = solve_rows(
        users.positives,
        items.vectors,
        prior=prior,
        gram=items.gram(),
        unobserved=world.weights.unobserved,
        penalties=users.penalties,
    )
    q = items.vectors[items.is_there]
    for row in np.flatnonzero(users.is_there):
        c, pays = world.c[row][items.is_there], users.penalties[row]
        left = np.concatenate(
            [
                np.sqrt(c)[:, np.newaxis] * q,
                np.sqrt(world.weights.unobserved) * q,
                np.sqrt(pays) * np.eye(q.shape[1]),
            ]
        )
        right = np.concatenate([np.sqrt(c), np.zeros(len(q)), np.sqrt(pays) * prior[row]])
        expected = np.linalg.lstsq(left, right)[0]
        np.testing.assert_allclose(found[row], expected, rtol=1e-7, atol=1e-9)


@given(worlds)
@settings(deadline=None)
def test_no_block_raises_the_objective(world: World) -> None:
    """The objective is that of the equation; each half of a sweep lowers it, or leaves it."""
    users, items = world.users, world.items
    before = np.inf
    for _ in range(4):
        for solve_users in (True, False):
            if solve_users:
                users = users.solved(items, world.weights)
            else:
                items = items.solved(users, world.weights)
            now = objective(users, items, world.weights)
            assert now == pytest.approx(naive_objective(world, users, items), rel=1e-9)
            assert now <= before * (1 + 1e-12)
            before = now


def test_features_are_the_ridge_regression_that_the_objective_asks_for() -> None:
    """No move of features' vectors, with the sums kept, lowers it."""
    world = World(1, n_users=40, n_items=30, k=3, density=0.3)
    items = world.items.solved(world.users, world.weights)
    x, pays = x_of(items)[items.is_there], items.penalties[items.is_there, np.newaxis]
    wanted = items.vectors[items.is_there]
    for _ in range(20):  # features settle with the vectors fixed
        items = items._with_features()
    expected = np.linalg.solve(x.T @ (pays * x) + pays.mean() * np.eye(5), x.T @ (pays * wanted))
    np.testing.assert_allclose(items.learned, expected, rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 40, 2**22])
def test_it_does_not_matter_how_many_rows_are_solved_together(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(2, n_users=30, n_items=12, k=4, density=0.4)
    alone = world.users.solved(world.items, world.weights)
    monkeypatch.setattr(least_squares, "CELLS", cells)
    found = world.users.solved(world.items, world.weights)
    np.testing.assert_allclose(found.vectors, alone.vectors, rtol=1e-10)


def test_two_camps_are_told_apart_and_sweeps_end() -> None:
    block = np.ones((6, 4), dtype=np.float32)
    c = sparse.csr_array(np.block([[block, 0 * block], [0 * block, block]]))
    weights = Weights(unobserved=0.1, penalty=0.001)
    none = {n: Content(sparse.csr_array((n, 0), dtype=np.float32), empty(n)) for n in c.shape}
    rng = np.random.default_rng(0)
    starts: dict[int, Any] = {n: rng.standard_normal((n, 2)).astype(np.float32) for n in c.shape}
    users = Half.start(c, none[12], starts[12], weights)
    items = Half.start(c.T.tocsr(), none[8], starts[8], weights)
    found = list(sweeps(users, items, weights, most=50))
    assert len(found) < 50
    solved = found[-1]
    assert solved.users.vectors.dtype == np.float32
    scores = solved.users.vectors @ solved.items.vectors.T
    np.testing.assert_allclose(scores, c.toarray(), atol=0.15)


def empty(n: int) -> Any:
    return np.zeros((n, 0), dtype=np.float32)
