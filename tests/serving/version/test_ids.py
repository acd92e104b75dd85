from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.version import ids as id_table
from serving.version.ids import IdTable
from towers.features.values import INT64, MISSING_INTEGER

integers = st.integers(INT64.min, INT64.max) | st.sampled_from([INT64.min, -1, 0, INT64.max])
texts = st.text() | st.sampled_from(["", "\0", "a", "a\0", " ", "é", "e\u0301", "x" * 1000])
ids_of_a_kind = st.sampled_from([integers, texts]).flatmap(
    lambda kind: st.tuples(st.lists(kind, unique=True), st.lists(kind))
)


def table_of(ids: list[Any], **options: Any) -> IdTable:
    kind = pa.int64() if ids and isinstance(ids[0], int) else pa.string()
    return IdTable(pa.array(ids, kind), **options)


def rows_of(table: IdTable, ids: list[Any]) -> list[int]:
    rows: list[int] = table.find(np.array(ids, dtype=table.dtype)).tolist()
    return rows


def collide(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Three different hashes at most, the largest of all among them."""
    kinds = np.array([len(str(id)) % 3 for id in ids], dtype=np.uint64)
    return np.where(kinds == 2, np.uint64(2**64 - 1), kinds)


@pytest.mark.parametrize("options", [{}, {"hash_ids": collide}])
@given(given=ids_of_a_kind)
def test_every_id_is_found_at_its_row_and_no_other(
    options: dict[str, Any], given: tuple[list[Any], list[Any]]
) -> None:
    ids, others = given
    table = table_of(ids, **options)
    places = {id: row for row, id in enumerate(ids)}
    if not ids:
        others = [str(id) for id in others]
    asked = [*others, *reversed(ids), *ids[:1]]
    assert rows_of(table, asked) == [places.get(id, -1) for id in asked]
    assert table.to_numpy().tolist() == ids
    assert len(table) == len(ids)


@given(ids=st.lists(integers, unique=True, min_size=1), others=st.lists(integers))
def test_integers_that_ascend_are_found_without_buckets(ids: list[int], others: list[int]) -> None:
    ids = sorted(ids)

    def refuse(_: NDArray[Any]) -> NDArray[np.uint64]:
        raise AssertionError("hashed")

    table = table_of(ids, hash_ids=refuse)
    asked = [*others, *ids]
    assert rows_of(table, asked) == [ids.index(id) if id in ids else -1 for id in asked]


def test_ids_that_fill_several_blocks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_table, "BLOCK", 7)
    numbers = np.random.default_rng(0).permutation(100)
    for ids in (numbers.tolist(), [f"item {number}" for number in numbers]):
        assert rows_of(table_of(ids), ids) == list(range(100))


@pytest.mark.parametrize("ids", [[5, 3, 2**62 + 1], ["b", "", "a"]])
def test_ids_of_rows_keep_their_shape_and_type(ids: list[Any]) -> None:
    table = table_of(ids)
    missing: Any = MISSING_INTEGER if isinstance(ids[0], int) else ""
    rows = np.array([[2, -1], [0, 0]])
    assert table.take(rows).tolist() == [[ids[2], missing], [ids[0], ids[0]]]
    assert table.take(rows).dtype == table.dtype
    assert table.take(rows[:0]).shape == (0, 2)
    table.take(rows)[:] = missing  # it is a copy
    assert table.to_numpy().tolist() == ids


def test_no_rows_of_no_ids() -> None:
    for table in (IdTable(pa.array([], pa.int64())), IdTable(pa.nulls(0))):
        assert table.take(np.array([-1])).tolist() == [table.missing_id]
        assert table.find(np.array([table.missing_id], dtype=table.dtype)).tolist() == [-1]


@pytest.mark.parametrize(
    ("ids", "kind", "dtype"),
    [
        (pa.array([3, 1], pa.int16()), pa.int64(), np.int64),
        (pa.array([3, 1], pa.uint64()), pa.int64(), np.int64),
        (pa.array(["b", "a"], pa.large_string()), pa.large_string(), object),
        (pa.array(["b", "a"]).dictionary_encode(), pa.string(), object),
    ],
)
def test_ids_of_other_types_are_brought_to_one_of_two(ids: Any, kind: Any, dtype: Any) -> None:
    table = IdTable(ids)
    assert (table.values.type, table.dtype) == (kind, dtype)
    assert rows_of(table, ids.to_pylist()) == [0, 1]


def test_what_is_no_unicode_has_no_row() -> None:
    table = table_of(["", "None", "a"])
    assert rows_of(table, ["\ud800", "a", "\udfffa", ""]) == [-1, 2, -1, 0]


def test_integers_of_the_least_number_are_told_from_rows_that_are_missing() -> None:
    assert rows_of(table_of([INT64.min, 7, -3]), [INT64.min, 7]) == [0, 1]
