from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from serving.version import seen as module
from serving.version.seen import COLUMNS, Seen, write_pairs
from towers.errors import BundleError
from towers.features.schema import SIDES

PAIRS = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]])
BLOCKS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8))))


def test_what_was_written_is_read_both_ways(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3))
    assert [seen.of("user", row).tolist() for row in (0, 1, 2, -1)] == [[1, 2], [], [0, 2], []]
    assert [seen.of("item", row).tolist() for row in (0, 1, 2, -1)] == [[2], [0], [0, 2], []]


def test_what_is_judged_is_seen_but_not_chosen(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    write_pairs(tmp_path / "judged.parquet", [(np.array([2, 0]), np.array([1, 0]))])
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3), judged=tmp_path / "judged.parquet")
    assert [seen.of("user", row).tolist() for row in range(3)] == [[1, 2], [], [0, 2]]
    rows = np.array([2, -1, 0])
    pairs = {source: list(zip(*seen.pairs(source, rows), strict=True)) for source in SIDES}
    assert sorted(pairs["user"]) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    assert sorted(pairs["item"]) == [(0, 0), (0, 2), (2, 0), (2, 2)]


def test_items_stay_in_the_order_of_each_user(tmp_path: Path) -> None:
    items = np.array([2, 0, 1, 2, 1])
    pairs = scipy.sparse.csr_array((np.ones(5), items, np.array([0, 3, 3, 5])), shape=(3, 3))
    Seen(pairs).write(tmp_path / "seen.parquet")
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3))
    assert [seen.of("user", row).tolist() for row in range(3)] == [[2, 0, 1], [], [2, 1]]
    places, found = seen.pairs("user", np.array([2, -1, 0]))
    assert (places.tolist(), found.tolist()) == ([0, 0, 2, 2, 2], [2, 1, 2, 0, 1])
    assert seen.of("item", 2).tolist() == [0, 2]


@pytest.mark.parametrize("block", [2, 2**20])
@given(blocks=BLOCKS)
def test_blocks_of_users_in_any_order_keep_the_order_of_items(
    tmp_path_factory: pytest.TempPathFactory, block: int, blocks: list[list[tuple[int, int]]]
) -> None:
    path = tmp_path_factory.mktemp("seen") / "seen.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        arrays = (np.array(pairs, dtype=np.int64).reshape(-1, 2).T for pairs in blocks)
        write_pairs(path, ((users, items) for users, items in arrays))
        stored = pq.read_table(path)
        pairs = [pair for block in blocks for pair in block]
        assert list(zip(*(stored[name].to_pylist() for name in COLUMNS), strict=True)) == pairs
        assert stored.schema.types == [pa.int64(), pa.int64()]
        seen = Seen.read(path, shape=(6, 9))
        expected = [[item for user, item in pairs if user == row] for row in range(6)]
        assert np.split(seen.matrix.indices, seen.matrix.indptr[1:-1])[0].tolist() == expected[0]
        assert [seen.of("user", row).tolist() for row in range(6)] == expected
        seen.write(path)
        again = Seen.read(path, shape=(6, 9))
    np.testing.assert_array_equal(again.matrix.indices, seen.matrix.indices)
    np.testing.assert_array_equal(again.matrix.indptr, seen.matrix.indptr)


def test_rows_are_narrow_and_leave_wide(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    seen = Seen.read(tmp_path / "seen.parquet", shape=(3, 3))
    assert seen.matrix.indices.dtype == seen.matrix.indptr.dtype == np.int32
    places, found = seen.pairs("item", np.array([2]))
    assert seen.of("user", 0).dtype == places.dtype == found.dtype == np.int64
    wide = Seen.read(tmp_path / "seen.parquet", shape=(3, 2**31))
    assert wide.of("user", 2).tolist() == [0, 2]
    assert wide.matrix.indices.dtype == np.int64


def test_rows_of_no_user_or_item_are_refused(tmp_path: Path) -> None:
    Seen(scipy.sparse.csr_array(PAIRS)).write(tmp_path / "seen.parquet")
    for shape in ((2, 3), (3, 2)):
        with pytest.raises(BundleError, match=f"rows of {shape[0]} users and {shape[1]} items"):
            Seen.read(tmp_path / "seen.parquet", shape=shape)
    write_pairs(tmp_path / "negative.parquet", [(np.array([0, -1]), np.array([0, 0]))])
    with pytest.raises(BundleError, match="not in 0 to 2"):
        Seen.read(tmp_path / "negative.parquet", shape=(3, 3))
    with pytest.raises(BundleError, match=r"none\.parquet"):
        Seen.read(tmp_path / "none.parquet", shape=(3, 3))
    pq.write_table(pa.table({"user_row": [1]}), tmp_path / "half.parquet")
    with pytest.raises(BundleError, match=r"half\.parquet"):
        Seen.read(tmp_path / "half.parquet", shape=(3, 3))
