from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from serving.seen import Seen
from towers.errors import BundleError

PAIRS = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]])


def test_what_was_written_is_read_both_ways(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3))
    assert [seen.of("user", row).tolist() for row in (0, 1, 2, -1)] == [[1, 2], [], [0, 2], []]
    assert [seen.of("item", row).tolist() for row in (0, 1, 2, -1)] == [[2], [0], [0, 2], []]


def test_items_stay_in_the_order_of_each_user(tmp_path: Path) -> None:
    items = np.array([2, 0, 1, 2, 1])
    pairs = scipy.sparse.csr_array((np.ones(5), items, np.array([0, 3, 3, 5])), shape=(3, 3))
    Seen(pairs).write(tmp_path / "seen.parquet")
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3))
    assert [seen.of("user", row).tolist() for row in range(3)] == [[2, 0, 1], [], [2, 1]]
    places, found = seen.pairs("user", np.array([2, -1, 0]))
    assert (places.tolist(), found.tolist()) == ([0, 0, 2, 2, 2], [2, 1, 2, 0, 1])
    assert seen.of("item", 2).tolist() == [0, 2]


def test_rows_of_no_user_or_item_are_refused(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    with pytest.raises(BundleError, match="rows of 2 users and 3 items"):
        Seen.read(tmp_path / "seen.parquet", shape=(2, 3))
    with pytest.raises(BundleError, match=r"none\.parquet"):
        Seen.read(tmp_path / "none.parquet", shape=(3, 3))
