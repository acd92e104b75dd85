from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.steps.hashing import blocks_of, draws, hash_ids, mix

INTEGERS = st.integers(-(2**63), 2**63 - 1)


def test_the_mix_is_that_of_splitmix64() -> None:
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden, 2 * golden % 2**64], dtype=np.uint64)  # of a generator seeded with 0
    assert mix(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(ids=st.one_of(st.lists(INTEGERS), st.lists(st.text(min_size=1))))
def test_an_id_has_its_hash_wherever_it_stands(ids: list[int] | list[str]) -> None:
    kind = "int64" if ids and isinstance(ids[0], int) else object
    column = pd.Series(ids, dtype=kind)
    hashes = hash_ids(column)
    assert hashes.dtype == np.uint64
    assert hash_ids(column[::-1]).tolist() == hashes[::-1].tolist()
    for n in range(len(column)):
        assert hash_ids(column.iloc[[n]])[0] == hashes[n]


def test_hashes_do_not_change_from_release_to_release() -> None:
    assert hash_ids(pd.Series([0, -1, 2**40])).tolist() == [
        16294208416658607535,
        16490336266968443936,
        2296115805719413641,
    ]
    assert hash_ids(pd.Series(["a", "é"], dtype=object)).tolist() == [
        13950350942979735504,
        16908809132758853863,
    ]


def test_a_draw_depends_on_seed_user_and_item() -> None:
    users = hash_ids(pd.Series(np.repeat(np.arange(100), 100)))
    items = hash_ids(pd.Series(np.tile(np.arange(100), 100)))
    first, second = (draws(users, items, seed=seed) for seed in (1, 2**70))
    found = np.concatenate([first, second])
    assert len(np.unique(found)) == len(found)
    quarters = np.bincount((found >> np.uint64(62)).astype(int))
    assert abs(quarters - len(found) / 4).max() < 5 * np.sqrt(len(found) / 4)
    np.testing.assert_array_equal(draws(users[7:9], items[7:9], seed=1), first[7:9])


def test_users_are_spread_over_the_blocks() -> None:
    sizes = np.bincount(blocks_of(hash_ids(pd.Series(np.arange(10_000))), n_blocks=10))
    assert abs(sizes - 1000).max() < 150
