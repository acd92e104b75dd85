from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.data.columns.ids import IdColumn, IdKind, decide_id_kind, parse_ids
from pipelines.data.sources.frame_source import FrameSource
from towers.errors import DataError

INTEGERS = st.integers(-(2**63), 2**63 - 1)


def ids(values: list[Any], *, typed: bool, name: str = "users", dtype: Any = object) -> IdColumn:
    source = FrameSource.of(pd.DataFrame({"id": pd.Series(values, dtype=dtype)}), name=name)
    rows = source.read(0, source.n_rows)
    return IdColumn(source=replace(rows, typed=typed), column="id")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([ids(["1", "2", ""], typed=False)], "integer"),
        ([ids(["1", "02"], typed=False)], "text"),
        ([ids(["1"], typed=True)], "text"),
        ([ids([1], typed=True, dtype="int32")], "integer"),
        ([ids([1.0, None], typed=True, dtype="float64")], "integer"),
        ([ids(["1"], typed=False), ids(["a"], typed=False)], "text"),
        ([ids(["1"], typed=False), ids([1], typed=True)], "integer"),
        ([ids(["1"], typed=False), ids(["1"], typed=True)], "text"),
        ([ids([], typed=False), ids(["a"], typed=True)], "text"),
        ([ids([None], typed=True), ids([1], typed=True)], "integer"),
        ([ids(["1"], typed=True, dtype="category")], "text"),
        ([ids(["9223372036854775808"], typed=False)], "text"),
    ],
)
def test_the_kind_is_decided_over_all_columns(columns: list[IdColumn], expected: IdKind) -> None:
    assert decide_id_kind(columns) == expected


def test_integers_here_and_text_there_are_refused() -> None:
    typed = ids([1, 2], typed=True, name="interactions")
    with pytest.raises(DataError, match=r"integers in.*interactions.*text in.*users.*'x'.*iloc:1"):
        decide_id_kind([typed, ids(["1", "x"], typed=False)])
    with pytest.raises(DataError, match=r"'1' at users.iloc:0.*both as integers or both as text"):
        decide_id_kind([typed, ids(["1", "2"], typed=True)])


def test_ids_that_are_neither_are_refused() -> None:
    with pytest.raises(DataError, match=r"all integers or all text.*int .1 at .*iloc:0., str .'a'"):
        decide_id_kind([ids([1, "a"], typed=True)])
    with pytest.raises(DataError, match=r"all integers or all text.*bool"):
        decide_id_kind([ids([True], typed=True, dtype="bool")])


@given(st.lists(st.one_of(st.none(), INTEGERS)))
def test_integers_are_never_narrowed(values: list[int | None]) -> None:
    for column in (
        pd.Series(values, dtype=object),
        pd.Series(values, dtype="Int64"),
        pd.Series(["" if value is None else str(value) for value in values], dtype=object),
    ):
        parsed = parse_ids(column, kind="integer")
        assert parsed.values.dtype == np.int64
        assert parsed.values.tolist() == [value or 0 for value in values]
        assert parsed.missing.tolist() == [value is None for value in values]
        assert not parsed.faulty.any()


@example(["", "\x00"])
@given(st.lists(st.one_of(st.none(), st.text(max_size=3))))
def test_text_stays_as_it_is(values: list[str | None]) -> None:
    parsed = parse_ids(pd.Series(values, dtype=object), kind="text")
    assert parsed.values.tolist() == [value or None for value in values]
    assert parsed.missing.tolist() == [not value for value in values]
    assert not parsed.faulty.any()


def test_floats_are_integers_only_where_they_are_exact() -> None:
    parsed = parse_ids(pd.Series([1.0, None, 1.5, 2.0**53, np.inf]), kind="integer")
    assert parsed.values[0] == 1
    assert parsed.missing.tolist() == [False, True, False, False, False]
    assert parsed.faulty.tolist() == [False, False, True, True, True]


def test_a_float_of_32_bits_is_exact_for_less() -> None:
    parsed = parse_ids(pd.Series([2.0**24 - 1, 2.0**24], dtype="float32"), kind="integer")
    assert parsed.faulty.tolist() == [False, True]


def test_decimals_are_integers_where_they_are_whole() -> None:
    column = pd.Series([Decimal(2**60 + 1), Decimal("1.5")], dtype=object)
    parsed = parse_ids(column, kind="integer")
    assert parsed.values[0] == 2**60 + 1
    assert parsed.faulty.tolist() == [False, True]


def test_integers_beyond_64_bits_are_faulty() -> None:
    parsed = parse_ids(pd.Series([1, 2**63], dtype="uint64"), kind="integer")
    assert parsed.faulty.tolist() == [False, True]
