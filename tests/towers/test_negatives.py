from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from towers.negatives import MinedNegatives, SharedSampler, Source, keep_probability


def sampler(
    popularity: list[int], *, uniform: int = 0, by_popularity: int = 0, power: float = 1.0
) -> SharedSampler:
    return SharedSampler.build(
        np.array(popularity), uniform=uniform, by_popularity=by_popularity, power=power
    )


def mined(items: list[list[int]]) -> MinedNegatives:
    return MinedNegatives(
        items=np.array(items, dtype=np.int32).reshape(len(items), -1), version=1, ranks=(1, 9)
    )


@given(
    popularity=st.lists(st.integers(0, 5), min_size=1, max_size=30).filter(any),
    uniform=st.integers(0, 40),
    by_popularity=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=examples(200))
def test_shared_negatives_are_distinct_in_range_and_ascending(
    popularity: list[int], uniform: int, by_popularity: int, seed: int
) -> None:
    shared = sampler(popularity, uniform=uniform, by_popularity=by_popularity)
    items, sources = shared.draw(np.random.default_rng(seed))
    assert items.dtype == np.int64
    assert sources.dtype == np.int8
    assert items.shape == sources.shape
    assert np.all(np.diff(items) > 0)
    chosen = np.flatnonzero(popularity)  # what nobody has chosen is no negative
    assert set(items) <= set(chosen)
    assert np.sum(sources == Source.UNIFORM) == min(uniform, len(chosen))
    assert np.sum(sources == Source.POPULARITY) <= by_popularity
    again, _ = shared.draw(np.random.default_rng(seed))
    np.testing.assert_array_equal(items, again)


def test_as_many_uniform_negatives_as_items_are_all_that_somebody_has_chosen() -> None:
    items, sources = sampler([0, 3, 0, 1], uniform=9, by_popularity=5).draw(
        np.random.default_rng(0)
    )
    assert items.tolist() == [1, 3]
    assert sources.tolist() == [Source.UNIFORM] * 2


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0])
def test_popular_negatives_come_in_proportion_to_popularity_to_the_power(power: float) -> None:
    popularity = [0, 1, 10, 0, 100, 5, 0]
    shared = sampler(popularity, by_popularity=1, power=power)
    rng = np.random.default_rng(7)
    n = 4000
    drawn = np.concatenate([shared.draw(rng)[0] for _ in range(n)])
    shares = np.bincount(drawn, minlength=len(popularity)) / n
    expected = np.array([p**power if p else 0.0 for p in popularity])
    expected /= expected.sum()
    assert np.all(shares[[0, 3, 6]] == 0.0)
    within = 4 * np.sqrt(expected * (1 - expected) / n)  # four standard deviations of a share
    assert np.all(np.abs(shares - expected) <= within)


def test_uniform_negatives_are_equally_likely() -> None:
    shared = sampler([1] * 9 + [1000], uniform=2)
    rng = np.random.default_rng(3)
    n = 4000
    counts = np.bincount(np.concatenate([shared.draw(rng)[0] for _ in range(n)]), minlength=10)
    assert np.all(np.abs(counts / n - 0.2) <= 4 * np.sqrt(0.2 * 0.8 / n))


@given(
    items=st.lists(st.lists(st.integers(-1, 20), min_size=4, max_size=4), min_size=1, max_size=5),
    count=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_mined_negatives_are_the_user_s_own_and_each_once(
    items: list[list[int]], count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    users = rng.integers(len(items), size=7)
    drawn = mined(items).draw(users, rng, count=count)
    assert drawn.shape == (7, count)
    assert drawn.dtype == np.int64
    for user, row in zip(users, drawn, strict=True):
        present = row[row >= 0]
        assert set(present) <= set(items[user])
        assert len(set(present)) == len(present)


def test_mined_negatives_come_from_every_rank() -> None:
    rng = np.random.default_rng(0)
    drawn = mined([[5, 6, 7]]).draw(np.zeros(300, dtype=np.int64), rng, count=1)
    shares = np.bincount(drawn[:, 0], minlength=8)[5:] / 300
    assert np.all(np.abs(shares - 1 / 3) <= 4 * np.sqrt(2 / 9 / 300))


def test_drawing_leaves_the_mined_negatives_as_they_are() -> None:
    negatives = mined([[9, 3, 3, 1]])
    negatives.draw(np.zeros(50, dtype=np.int64), np.random.default_rng(0), count=4)
    assert negatives.items.tolist() == [[9, 3, 3, 1]]


def test_without_mined_ranks_nothing_is_drawn() -> None:
    drawn = mined([[], []]).draw(np.array([1, 0]), np.random.default_rng(0), count=3)
    assert drawn.tolist() == [[-1] * 3] * 2


@given(
    popularity=st.lists(st.integers(0, 1000), min_size=1, max_size=10),
    threshold=st.floats(1e-6, 10.0),
)
def test_keep_probability_is_word2vec_s(popularity: list[int], threshold: float) -> None:
    keep = keep_probability(np.array(popularity), threshold=threshold)
    total = sum(popularity)
    for count, probability in zip(popularity, keep, strict=True):
        if count == 0:
            assert probability == 1.0
            continue
        # word2vec.c: (sqrt(count / (sample * total)) + 1) * (sample * total) / count
        ratio = count / (threshold * total)
        expected = (np.sqrt(ratio) + 1) / ratio
        assert probability == pytest.approx(min(1.0, expected), rel=1e-12)


@pytest.mark.parametrize("popularity", [[0, 3, 1000], [0, 0]])
def test_a_threshold_of_zero_keeps_every_positive(popularity: list[int]) -> None:
    keep: NDArray[np.float64] = keep_probability(np.array(popularity), threshold=0.0)
    assert keep.tolist() == [1.0] * len(popularity)


def test_more_popular_positives_are_kept_less_often() -> None:
    keep = keep_probability(np.array([1, 10, 100, 1000]), threshold=1e-3)
    assert keep[0] == 1.0
    assert np.all(np.diff(keep[1:]) < 0)
