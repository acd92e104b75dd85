from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.candidates.features import (
    check_types,
    id_lists,
    ids_of,
    pack_table,
    without_null_texts,
)
from towers.errors import DataError
from towers.features.lists import NUMBERS
from towers.features.packer import Input, pack

INPUTS = {
    "id": Input(dtype=np.int64, is_id=True),
    "city": Input(dtype=object),
    "zone": Input(dtype=np.int64),
    "age": Input(dtype=np.float32),
    "history": Input(dtype=np.int64, rank=2, is_id=True),
    "tags": Input(dtype=object, rank=2, separator="|"),
    "weights": Input(dtype=np.float32, rank=2, separator="|"),
    "absent": Input(dtype=object, rank=2, separator="|"),
}
VECTOR = {"cover": Input(dtype=np.float32, rank=2, separator=NUMBERS, length=2)}
COLUMNS = {name: f"The {name}" for name in INPUTS}


def packed(**columns: Any) -> tuple[dict[str, Any], Any, Any]:
    table = pa.table({COLUMNS[name]: column for name, column in columns.items()})
    check_types(table.schema, inputs=INPUTS, columns=COLUMNS)
    return pack_table(table, inputs=INPUTS, columns=COLUMNS, id_input="id")


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([[1.0, 2.0], None, [3.0], [4.0, 5.0]]),
        pa.array(["[1.0, 2.0]", None, "3", "4 5"]),
    ],
)
def test_vectors_are_matrices_and_one_of_another_length_cannot_be_read(cells: pa.Array) -> None:
    table = pa.table({"cover": cells})
    check_types(table.schema, inputs=VECTOR, columns={"cover": "cover"})
    found, is_given, faulty = pack_table(
        table, inputs=VECTOR, columns={"cover": "cover"}, id_input=None
    )
    expected = [[1.0, 2.0], [np.nan] * 2, [np.nan] * 2, [4.0, 5.0]]
    np.testing.assert_array_equal(found["cover"], expected)
    assert is_given.tolist() == [True, False, True, True]
    assert faulty.tolist() == [False, False, True, False]


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
def test_a_table_is_packed_as_plain_values_are(list_type: Any) -> None:
    raw: dict[str, list[Any]] = {
        "id": [2**62 + 1, None, -3],
        "city": ["Łódź", "", None],
        "age": [30.5, None, 2**20],
        "history": [[1, 2**60, None], [], None],
        "tags": [None, ["a"], ["b", "c"]],
        "weights": [[0.5], None, [1, 2]],
    }
    lists = {"history": pa.int64(), "tags": pa.string(), "weights": pa.float64()}
    table = pa.table(
        {
            COLUMNS[name]: pa.array(values, list_type(lists[name]) if name in lists else None)
            for name, values in raw.items()
        }
    )
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    expected = pack(raw, inputs=INPUTS, size=3)
    for given in (table, chunked):
        found, is_given, faulty = pack_table(given, inputs=INPUTS, columns=COLUMNS, id_input="id")
        assert list(found) == list(expected)
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])
            assert values.dtype == expected[name].dtype
        assert is_given.tolist() == [True] * 3
        assert not faulty.any()


def test_an_id_or_missing_values_say_nothing() -> None:
    _, given, _ = packed(
        id=[1, 2, 3, 4, 5],
        age=[None, float("nan"), None, 1.0, None],
        city=["", None, None, None, None],
        history=pa.array([[], None, [None], None, [4]], pa.list_(pa.int64())),
    )
    assert given.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", ""]),
        (pa.array(["a", "b", None], pa.large_string()), ["a", "b", ""]),
        (pa.array(["a", "b", None], pa.string_view()), ["a", "b", ""]),
        (pa.array([b"a", b"b", None]), ["a", "b", ""]),
        (pa.array([7, -1, None]), ["7", "-1", ""]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array([1.0, 2.5, float("nan")]), ["1", "2.5", ""]),
        (pa.nulls(3), ["", "", ""]),
    ],
)
def test_text_is_written_as_in_training(column: Any, expected: list[str]) -> None:
    found, _, _ = packed(city=column)
    assert found["city"].tolist() == expected
    raw = [None if pd.isna(value) else value for value in column.to_pylist()]
    raw = [value.decode() if isinstance(value, bytes) else value for value in raw]
    plain = pack({"city": raw}, inputs={"city": INPUTS["city"]}, size=3)
    assert plain["city"].tolist() == expected


def test_whole_floats_and_small_integers_are_integers() -> None:
    missing = np.iinfo(np.int64).min
    for column in (pa.array([3.0, float("nan")]), pa.array([3, None], pa.uint8())):
        assert packed(id=column)[0]["id"].tolist() == [3, missing]


def test_text_is_read_as_what_the_feature_is() -> None:
    found, given, faulty = packed(
        zone=["35", "35.0", "x", None], age=["1.50", "", "x", "true"], tags=["a|1.0", "", None, "b"]
    )
    assert found["zone"].tolist()[:2] == [35, 35]
    np.testing.assert_array_equal(found["age"], np.array([1.5, np.nan, np.nan, 1.0], np.float32))
    assert found["tags"].tolist() == [["a", "1"], ["", ""], ["", ""], ["b", ""]]
    assert faulty.tolist() == [False, False, True, False]
    assert given.tolist() == [True] * 4


def test_numbers_beyond_32_bits_are_faults_of_their_rows() -> None:
    ages = [1e39, float("-inf"), 5.0, None]
    found, _, faulty = packed(
        age=ages, weights=pa.array([[], [1.0], [1.0, 1e300], None], pa.list_(pa.float64()))
    )
    assert faulty.tolist() == [True, True, True, False]
    assert np.isnan(found["age"]).tolist() == [True, True, False, True]
    assert packed(age=pa.array([Decimal("1.50")]))[0]["age"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("id", pa.array(["1"]), "column 'The id': expected a 64-bit integer, received string"),
        ("zone", pa.array([True]), "column 'The zone': expected a 64-bit integer, received bool"),
        ("age", pa.array([0], pa.date32()), "column 'The age': expected a 32-bit number"),
        (
            "city",
            pa.array([{"a": 1}]),
            "column 'The city': expected one token as text, received st",
        ),
        ("city", pa.array([["x"]]), "column 'The city': expected one token as text, received lis"),
        ("history", pa.array([1]), "column 'The history': expected lists, received int64"),
        ("history", pa.array([["a"]]), "column 'The history': expected lists, received list"),
        ("tags", pa.array([[["a"]]]), "column 'The tags': expected lists, received list"),
    ],
)
def test_a_column_of_another_type_is_refused_before_any_row_is_read(
    name: str, column: Any, message: str
) -> None:
    for given in (column, column.slice(0, 0)):
        with pytest.raises(DataError, match=message):
            packed(**{name: given})


@pytest.mark.parametrize("value", [1.5, 2.0**53])
def test_ids_are_never_narrowed(value: float) -> None:
    with pytest.raises(DataError, match=r"column 'u': expected integers of 64 bits, .* received"):
        ids_of("u", pa.array([1.0, value]), np.int64)
    with pytest.raises(DataError, match="column 'u': expected integers of 64 bits"):
        ids_of("u", pa.array([2**63], pa.uint64()), np.int64)


def test_lists_of_ids_of_any_kind_are_cut_alike() -> None:
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64())):
        array = pa.chunked_array([pa.array([[9], [1, 2], None, [], [3]], kind).slice(1)])
        ids, lengths = id_lists("x", array, np.dtype(np.int64))
        assert lengths.tolist() == [2, 0, 0, 1]
        assert ids.tolist() == [1, 2, 3]
    fixed = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    assert id_lists("x", fixed, np.dtype(np.int64))[1].tolist() == [2, 0, 2]
    assert id_lists("x", pa.nulls(2), np.dtype(np.int64))[1].tolist() == [0, 0]


def test_texts_that_meant_nothing_in_training_are_missing() -> None:
    nulls = frozenset({"NULL", "n/a"})
    plain = ["a", "NULL", None, "n/a"]
    table = pa.table(
        {
            "city": plain,
            "kind": pa.array(plain).dictionary_encode(),
            "large": pa.array(plain, pa.large_string()),
            "age": [1, 2, 3, None],
        }
    )
    found = without_null_texts(table, nulls)
    for name in ("city", "kind", "large"):
        assert found[name].to_pylist() == ["a", None, None, None]
    assert found["age"] == table["age"]
    assert without_null_texts(table, frozenset()) is table
