from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.data.sources.frame_source import FrameSource
from towers.errors import ConfigError, DataError

BIG = 2**60 + 1
array: Any = pd.array  # of more kinds of values than its stubs know


def values(column: Any) -> list[Any]:
    frame = pd.DataFrame({"x": column})
    source = FrameSource.of(frame, name="users")
    return source.read(0, len(frame)).frame["x"].tolist()


def test_a_frame_is_taken_by_position() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}, index=[7, 7, 8])
    source = FrameSource.of(frame, name="users")
    assert (source.typed, source.columns, source.n_rows) == (True, ("a", "b"), 3)
    rows = source.read(1, 3, columns=["b"])
    assert rows.frame.to_dict("list") == {"b": ["y", "z"]}
    assert rows.frame.index.tolist() == [0, 1]
    assert rows.locate(np.array([1])) == [("users.iloc", 2)]
    assert frame.index.tolist() == [7, 7, 8]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.arrays.SparseArray([0, 5, 0]), [0, 5, 0]),
        (pd.Categorical(["b", "a", None]), ["b", "a", None]),
        (pd.Categorical([BIG, 1, 1]), [BIG, 1, 1]),
        (array([BIG, None], dtype="Int64"), [BIG, None]),
        (array([True, None], dtype="boolean"), [True, None]),
        (array(["a", None], dtype="string"), ["a", None]),
        (array([BIG, None], dtype="int64[pyarrow]"), [BIG, None]),
        (array(["a", None], dtype=pd.ArrowDtype(pa.string())), ["a", None]),
        (array([Decimal("1.5")], dtype=pd.ArrowDtype(pa.decimal128(3, 1))), [Decimal("1.5")]),
        (array([[1, 2]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), [[1, 2]]),
        (pd.period_range("2020-01", periods=1, freq="M"), [pd.Timestamp("2020-01-01")]),
        (pd.arrays.IntervalArray.from_tuples([(0, 1)]), ["(0, 1]"]),
        ([2**70, 1], [2**70, 1]),
        ([b"x", b"y"], [b"x", b"y"]),
    ],
)
def test_columns_mean_the_same_however_they_are_stored(column: Any, expected: list[Any]) -> None:
    found = [list(value) if isinstance(value, np.ndarray) else value for value in values(column)]
    assert [None if isinstance(value, float) else value for value in found] == expected


def test_times_with_a_zone_keep_it() -> None:
    column = pd.to_datetime(["2020-01-01"], utc=True).tz_convert("Asia/Tokyo")
    assert values(column) == [pd.Timestamp("2020-01-01", tz="UTC")]


class Stream:
    """A frame of another library: all that is known of it is Arrow's stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("wrap", [Stream, lambda table: table])
def test_arrow_tables_and_streams_are_taken(wrap: Any) -> None:
    table = pa.table(
        {
            "id": pa.array([BIG, None]),
            "name": pa.array(["a", None]).cast(pa.string_view()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "tags": pa.array([["x"], None], pa.list_(pa.string_view())),
            "raw": pa.array([b"\xc3\xa9", b""]),
            "blob": pa.array([b"\xff", b""]),
            "day": pa.array([date(2020, 1, 1), None]),
        }
    )
    source = FrameSource.of(wrap(table), name="users")
    frame = source.read(0, 2).frame
    assert [None if tags is None else list(tags) for tags in frame.pop("tags")] == [["x"], None]
    assert frame.to_dict("list") == {
        "id": [BIG, None],
        "name": ["a", None],
        "kind": ["x", "y"],
        "raw": ["é", ""],
        "blob": [b"\xff", b""],
        "day": [date(2020, 1, 1), None],
    }


def test_a_polars_frame_is_taken() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": [1, None], "name": ["a", "b"], "tags": [["x"], []]})
    frame = frame.with_columns(name=polars.col("name").cast(polars.Categorical))
    rows = FrameSource.of(frame, name="users").read(0, 2).frame
    assert rows["id"].tolist() == [1, None]
    assert rows["name"].tolist() == ["a", "b"]
    assert [list(tags) for tags in rows["tags"]] == [["x"], []]
    wide = polars.DataFrame({"id": polars.Series([2**70], dtype=polars.Int128)})
    with pytest.raises(DataError, match=r"users: expected columns of types that Arrow knows"):
        FrameSource.of(wide, name="users")


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(DataError, match="each column once"):
        FrameSource.of(pd.DataFrame([[1, 2]], columns=["a", "a"]), name="users")
    with pytest.raises(DataError, match="each column once"):
        FrameSource.of(pa.table([[1], [2]], names=["a", "a"]), name="users")
    wrong: Any = {"a": [1]}
    with pytest.raises(ConfigError, match=r"users: expected a DataFrame.*received dict"):
        FrameSource.of(wrong, name="users")
