from __future__ import annotations

import numpy as np
import pytest

from pipelines.publishing.cut_by_length import cut_by_length

N = 20_000
LENGTHS = np.random.default_rng(0).permutation(np.geomspace(1, 100, N)).astype(np.float32)
BY_LENGTH = np.argsort(-LENGTHS)


def test_the_longest_are_apart_where_there_are_many_of_different_lengths() -> None:
    cut = cut_by_length(LENGTHS, np.arange(N))
    assert [len(rows) for rows in cut] == [400, 19_600]
    np.testing.assert_array_equal(np.concatenate(cut), BY_LENGTH)
    assert len(cut_by_length(LENGTHS[:1000], np.arange(1000))) == 1
    assert len(cut_by_length(np.ones(N, np.float32), np.arange(N))) == 1


def test_the_shortest_are_apart_where_they_are_many_and_hardly_ever_neighbours() -> None:
    most = BY_LENGTH[np.resize(np.arange(5000), (50, 100))]
    few = np.append(most, BY_LENGTH[[10_000]])  # one of five thousand
    for neighbours in (most, few):
        cut = cut_by_length(LENGTHS, neighbours)
        assert [len(rows) for rows in cut] == pytest.approx([400, 4600, 15_000], abs=60)
        np.testing.assert_array_equal(np.concatenate(cut), BY_LENGTH)
    many = np.append(most, BY_LENGTH[np.arange(5000, N, 30)])
    assert [len(rows) for rows in cut_by_length(LENGTHS, many)] == [400, 19_600]


def test_no_shell_is_empty_where_all_neighbours_are_long() -> None:
    cut = cut_by_length(LENGTHS, BY_LENGTH[:100])
    assert [len(rows) for rows in cut] == [400, 19_600]
