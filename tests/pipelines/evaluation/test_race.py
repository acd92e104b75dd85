from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.evaluation import race as racing
from pipelines.evaluation.race import about_as_good, near_best, race, standard_error

N = 2000
LUCK = np.random.default_rng(0).random(N)
"""What users find whatever the candidate; far more than any difference between candidates."""
NOISE = np.random.default_rng(1).normal(scale=0.2, size=N)


@pytest.fixture(autouse=True)
def few_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "FIRST", 50)
    monkeypatch.setattr(racing, "ERRORS", 3.0)


class Asked:
    """Candidates whose figures are known, and what was asked of them."""

    def __init__(self, figures: Mapping[str, NDArray[np.float64]]) -> None:
        self._figures = figures
        self.users: dict[str, list[int]] = {name: [] for name in figures}

    def __call__(
        self, candidates: Sequence[str], users: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        assert (np.diff(users) > 0).all()
        for name in candidates:
            self.users[name].extend(users.tolist())
        return [self._figures[name][users] for name in candidates]


def test_a_race_asks_ever_more_users_of_ever_fewer_candidates() -> None:
    close = LUCK + NOISE - NOISE.mean() - 0.01
    asked = Asked({"far": LUCK - 0.3, "close": close, "best": LUCK})
    order = np.random.default_rng(2).permutation(N)
    found = race(["far", "close", "best"], order, asked)
    assert about_as_good(found) == ("best", ["best"])
    assert len(found["far"]) == 50
    assert sorted(asked.users["far"]) == sorted(order[:50].tolist())
    assert sorted(asked.users["best"]) == list(range(N))  # nobody twice
    assert found["best"].mean() == pytest.approx(LUCK.mean())


def test_the_best_of_all_users_wins_where_the_first_users_prefer_another() -> None:
    """As on Gowalla, where a thousand users prefer a power that thirty thousand do not."""
    worse = LUCK + NOISE - NOISE.mean() - 0.02
    orders = (np.random.default_rng(seed).permutation(N) for seed in range(100))
    first = next(one for one in orders if (worse - LUCK)[one[:50]].mean() > 0.01)
    found = race(["worse", "best"], first, Asked({"worse": worse, "best": LUCK}))
    assert about_as_good(found)[0] == "best"


def test_a_race_ends_when_one_is_left() -> None:
    asked = Asked({"far": LUCK - 0.3 + 0.01 * NOISE, "best": LUCK})
    found = race(["far", "best"], np.arange(N), asked)
    assert (about_as_good(found)[0], len(asked.users["best"])) == ("best", 50)
    alone = Asked({"only": LUCK})
    assert (len(race(["only"], np.arange(N), alone)["only"]), len(alone.users["only"])) == (50, 50)


def test_of_equal_candidates_the_first_is_left_and_both_are_near_the_best() -> None:
    equal = race(["b", "a"], np.arange(N), Asked({"a": LUCK, "b": LUCK}))
    assert about_as_good(equal) == ("b", ["b", "a"])
    assert near_best({"b": LUCK, "a": LUCK}, errors=1.0) == ["b", "a"]


def test_candidates_are_compared_by_the_differences_of_users() -> None:
    wobble = np.tile([0.001, -0.001], N // 2)
    assert standard_error(LUCK) > 0.005
    assert near_best({"a": LUCK - 0.002 + wobble, "b": LUCK}, errors=3.0) == ["b"]
    shuffled = np.random.default_rng(3).permutation(LUCK) - 0.002
    assert near_best({"a": shuffled, "b": LUCK}, errors=3.0) == ["a", "b"]


def test_one_user_tells_nothing() -> None:
    assert standard_error(np.ones(1)) == np.inf
    assert near_best({"a": np.zeros(1), "b": np.ones(1)}, errors=1.0) == ["a", "b"]
