from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipelines.publishing.choose_effort import Option, choose_effort, cost_us, with_effort
from serving.search.scann_index import ScannSettings

K = 10
GROUPS = {"many": slice(0, 30), "few": slice(30, 40)}
TREE = ScannSettings(num_leaves=100, reorder=K, recall_k=K)


def options(seed: int, *, most: int) -> list[Option]:
    """Ways to search a shell with up to `most` neighbours of each query: more for a higher cost."""
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.random(6))
    return [
        Option(
            settings=with_effort(TREE, leaves=1 + number, reorder=K),
            cost_us=float(2**number),
            found=rng.binomial(most, share, size=40),
        )
        for number, share in enumerate([*shares, 1.0])
    ]


SHELLS = [options(1, most=5), options(2, most=3), options(3, most=2)]


def surely(chosen: tuple[Option, ...]) -> float:
    shares = np.sum([option.found for option in chosen], axis=0) / K
    parts = [shares[part] for part in GROUPS.values()]
    return float(min(part.mean() - 2 * part.std() / np.sqrt(len(part)) for part in parts))


@pytest.mark.parametrize("recall", [0.3, 0.6, 0.8, 0.95])
def test_enough_is_found_at_nearly_the_least_cost(recall: float) -> None:
    best, bargains = choose_effort(SHELLS, GROUPS, k=K, recall=recall)
    assert surely(best.options) == pytest.approx(best.surely)
    assert best.surely >= recall
    every = [chosen for chosen in itertools.product(*SHELLS) if surely(chosen) >= recall]
    least = min(sum(option.cost_us for option in chosen) for chosen in every)
    assert best.cost_us <= 1.3 * least
    assert best in bargains


def test_the_same_measures_give_the_same_choice() -> None:
    first, second = (choose_effort(SHELLS, GROUPS, k=K, recall=0.8)[0] for _ in range(2))
    assert first.options == second.options


def test_what_finds_most_is_given_where_nothing_finds_enough() -> None:
    few = [shell[:3] for shell in SHELLS]
    best, _ = choose_effort(few, GROUPS, k=K, recall=0.99)
    assert best.surely < 0.99
    assert best.surely == pytest.approx(max(surely(chosen) for chosen in itertools.product(*few)))


def test_a_kind_of_query_that_falls_short_costs_more() -> None:
    harder = [
        [Option(settings=o.settings, cost_us=o.cost_us, found=o.found.copy()) for o in shell]
        for shell in SHELLS
    ]
    for shell in harder:
        for option in shell[:-1]:
            option.found[GROUPS["few"]] = 0
    easy, hard = (choose_effort(x, GROUPS, k=K, recall=0.6)[0] for x in (SHELLS, harder))
    assert hard.cost_us > easy.cost_us
    assert min(hard.reached.values()) >= 0.6


def test_more_work_costs_more() -> None:
    less = cost_us(TREE, size=10_000, width=65)
    for more in (
        with_effort(TREE, leaves=2, reorder=K),
        with_effort(TREE, leaves=1, reorder=2 * K),
    ):
        assert cost_us(more, size=10_000, width=65) > less
    every = ScannSettings(num_leaves=None)
    assert cost_us(every, size=100_000, width=65) > cost_us(TREE, size=100_000, width=65)
    assert cost_us(every, size=100, width=65) < cost_us(TREE, size=100, width=65)
