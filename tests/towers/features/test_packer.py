from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.counted import counted
from towers.errors import QueryError
from towers.features.kinds import Categorical, Features, History, MultiValued, Numeric
from towers.features.packer import Input, input_dtypes, pack
from towers.features.schema import Schema
from towers.features.values import MISSING_INTEGER
from towers.features.vocabulary import fit_vocabulary

INPUTS = {
    "name": Input(dtype=object),
    "count": Input(dtype=np.int64),
    "age": Input(dtype=np.float32),
    "tags": Input(dtype=object, rank=2, separator="|"),
    "codes": Input(dtype=np.int64, rank=2, separator="|"),
    "weights": Input(dtype=np.float32, rank=2, separator="|"),
    "user": Input(dtype=object, is_id=True),
    "past": Input(dtype=np.int64, rank=2, is_id=True),
}


def pack_one(name: str, value: Any) -> Any:
    """Pack one value as a batch of one."""
    packed = pack({name: [value]}, inputs={name: INPUTS[name]}, size=1)[name]
    return packed.tolist()[0]


def test_inputs_follow_the_schema_and_what_training_saw() -> None:
    schema = Schema(
        user_id="user",
        item_id="item",
        user=Features(
            features=(
                History(column="past"),
                Categorical(column="city"),
                Categorical(column="zone"),
                Categorical(column="device", hash_buckets=4),
                Numeric(column="age"),
                Numeric(column="income", buckets=3),
            )
        ),
        item=Features(
            features=(
                Categorical(column="item"),
                MultiValued(column="tags", weights="tag_weights", separator=", "),
                MultiValued(column="codes"),
            )
        ),
    )
    users = pd.DataFrame(
        {"user": ["a"], "city": ["x"], "zone": [3], "device": [9], "age": [1.0], "income": [2.0]}
    )
    items = pd.DataFrame({"item": [7], "tags": [["t"]], "codes": [[5]]})
    vocabulary = fit_vocabulary(
        schema,
        **counted(
            users=users,
            items=items,
            interactions=pd.DataFrame({"user_id": ["a"], "item_id": [7]}),
        ),
    )
    assert input_dtypes(schema, vocabulary, side="user") == {
        "past": Input(dtype=np.int64, rank=2, is_id=True),
        "city": Input(dtype=object),
        "zone": Input(dtype=np.int64),
        "device": Input(dtype=object),
        "age": Input(dtype=np.float32),
        "income": Input(dtype=np.float32),
    }
    assert input_dtypes(schema, vocabulary, side="item") == {
        "item": Input(dtype=np.int64, is_id=True),
        "tags": Input(dtype=object, rank=2, separator=", "),
        "tag_weights": Input(dtype=np.float32, rank=2, separator=", "),
        "codes": Input(dtype=np.int64, rank=2, separator="|"),
    }


def test_columns_become_dense_arrays_with_markers_for_what_is_missing() -> None:
    packed = pack(
        {
            "name": pd.Series(["é", None]),
            "count": pd.Series([2**62 + 1, None], dtype="Int64"),
            "tags": [["a", None, "b"], None],
            "codes": (np.array([3]), [4, pd.NA]),
            "weights": [[0.5, None], []],
        },
        inputs={name: input for name, input in INPUTS.items() if not input.is_id},
        size=2,
    )
    assert {name: (array.dtype, array.shape) for name, array in packed.items()} == {
        "name": (np.dtype(object), (2,)),
        "count": (np.dtype(np.int64), (2,)),
        "age": (np.dtype(np.float32), (2,)),
        "tags": (np.dtype(object), (2, 3)),
        "codes": (np.dtype(np.int64), (2, 2)),
        "weights": (np.dtype(np.float32), (2, 2)),
    }
    assert packed["name"].tolist() == ["é", ""]
    assert packed["count"].tolist() == [2**62 + 1, MISSING_INTEGER]
    assert np.all(np.isnan(packed["age"]))
    assert packed["tags"].tolist() == [["a", "", "b"], ["", "", ""]]
    assert packed["codes"].tolist() == [[3, MISSING_INTEGER], [4, MISSING_INTEGER]]
    np.testing.assert_array_equal(packed["weights"], [[0.5, np.nan], [np.nan] * 2])


@pytest.mark.parametrize("size", [0, 3])
def test_absent_columns_are_missing_in_every_row(size: int) -> None:
    packed = pack({}, inputs=INPUTS, size=size)
    assert packed["name"].tolist() == [""] * size
    assert packed["codes"].shape == (size, 0)


@pytest.mark.parametrize(
    "missing", [None, np.nan, np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT]
)
def test_every_kind_of_null_is_missing(missing: Any) -> None:
    assert pack_one("name", missing) == ""
    assert pack_one("count", missing) == MISSING_INTEGER
    assert np.isnan(pack_one("age", missing))
    assert pack_one("tags", missing) == []
    assert pack_one("tags", ["a", missing]) == ["a", ""]
    assert pack_one("codes", [missing, 4]) == [MISSING_INTEGER, 4]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("日本 🎈", "日本 🎈"),
        ("007", "007"),
        (7, "7"),
        (np.int64(7), "7"),
        (0.5, "0.5"),
        (True, "true"),
        (np.bool_(False), "false"),
        ("", ""),
        (35.0, "35"),
        ("35.50", "35.5"),
        (datetime.date(2020, 1, 31), "2020-01-31"),
    ],
)
def test_a_text_token_is_written_as_the_tables_write_it(value: Any, text: str) -> None:
    assert pack_one("name", value) == text
    assert pack_one("tags", [value]) == [text]


@pytest.mark.parametrize("value", [7, np.int32(7), np.uint8(7), np.float32(7.0), 7.0, "7", "7.00"])
def test_a_number_may_be_written_in_any_way(value: Any) -> None:
    assert pack_one("age", value) == 7.0
    assert pack_one("count", value) == 7
    assert pack_one("codes", [value]) == [7]
    assert pack_one("weights", [value]) == [7.0]


def test_lists_may_be_text_or_one_value() -> None:
    assert pack_one("tags", "a|b") == ["a", "b"]
    assert pack_one("codes", 5) == [5]
    assert pack_one("weights", "0.5|") == pytest.approx([0.5, np.nan], nan_ok=True)
    assert pack_one("age", True) == 1.0


def test_ids_are_read_as_they_are() -> None:
    for text in ("True", "35.0", "007", "2020-01-31 00:00:00"):
        assert pack_one("user", text) == text
    assert pack_one("past", [7, np.int32(8)]) == [7, 8]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", "x", "'count': expected a 64-bit integer, received 'x'"),
        ("count", 7.5, "'count': expected a 64-bit integer, received 7.5"),
        ("count", True, "'count': expected a 64-bit integer, received True"),
        ("count", 2**63, "'count': expected a 64-bit integer, received 9223372036854775808"),
        ("count", np.uint64(2**63), "'count': expected a 64-bit integer"),
        ("age", "x", "'age': expected a 32-bit number, received 'x'"),
        ("age", [7.0], "'age': expected a 32-bit number"),
        ("age", 1e39, r"'age': expected a 32-bit number, received 1e\+39"),
        ("age", 10**400, "'age': expected a 32-bit number"),
        ("age", np.inf, "'age': expected a 32-bit number, received inf"),
        ("name", b"bytes", "'name': expected one token as text, received b'bytes'"),
        ("name", ["a"], r"'name': expected one token as text, received \['a'\]"),
        ("past", "5", "'past': expected a list, received '5'"),
        ("past", ["5"], "'past': expected a 64-bit integer, received '5'"),
        ("past", [2.0**53], r"'past': expected a 64-bit integer, received 9007199254740992\.0"),
        ("user", 7.0, r"'user': expected one token as text, received 7\.0"),
        ("tags", {"a": 1}, "'tags': expected a list"),
        ("tags", [["a"]], r"'tags': expected one token as text, received \['a'\]"),
        ("codes", [4, "5x"], "'codes': expected a 64-bit integer, received '5x'"),
        ("weights", ["x"], "'weights': expected a 32-bit number, received 'x'"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(QueryError, match=f"^feature {message}"):
        pack_one(name, value)


def test_unknown_columns_are_refused_and_the_known_ones_named() -> None:
    with pytest.raises(QueryError, match=r"\['aeg', 'x'\]; expected some of \['age', 'name'\]"):
        pack(
            {"x": [1], "aeg": [2], "name": ["a"]},
            inputs={name: INPUTS[name] for name in ("name", "age")},
            size=1,
        )


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(QueryError, match="'name': expected 2 values, received 1"):
        pack({"name": ["a"]}, inputs=INPUTS, size=2)
