"""What is said of what was read: nothing is left out, reinterpreted or rejected without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS
from pipelines.data.engines import Plan
from pipelines.data.prepare import Prepared, prepare
from towers.errors import DataError
from towers.typed import parse

AGE = {"features": [{"kind": "numeric", "column": "age"}]}


class Folder:
    """Tables in a folder, and the runs on them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: str) -> str:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(content)
        return str(self.path / name)

    def prepare(
        self,
        interactions: dict[str, Any] | None = None,
        *,
        data: dict[str, Any] | None = None,
        quarantine: bool = False,
        plan: Plan | None = None,
        frames: dict[str, Any] | None = None,
        **more: Any,
    ) -> Prepared:
        path = str(self.path / "c.csv") if frames is None else ""
        tables: dict[str, Any] = {"interactions": {"path": path} | (interactions or {})}
        tables |= {"on_bad_rows": "quarantine"} if quarantine else {}
        raw = {"data": tables | (data or {}), "split": {"test_fraction": 0.0}} | more
        config = parse(RunConfig, raw, where="test")
        number = len(list(self.path.glob("prepared-*")))
        folder = self.path / f"prepared-{number}"
        rejects = self.path / "rejects"
        return prepare(config, folder, frames=frames, plan=plan, quarantine_dir=rejects)

    def message(self, *args: Any, **settings: Any) -> str:
        with pytest.raises(DataError) as raised:
            self.prepare(*args, **settings)
        return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def users_of(prepared: Prepared) -> list[Any]:
    found: list[Any] = prepared.users["user_id"].tolist()
    return found


def test_a_feature_value_that_cannot_be_read_loses_no_user(folder: Folder) -> None:
    folder.write("c.csv", "user_id,item_id\n1,1\n2,2\n3,3\n")
    path = folder.write("u.csv", "id,age\n1,NULL\n2,old\n3,30\n")
    prepared = folder.prepare(data={"users": {"path": path, "id": "id"}}, user=AGE)
    assert len(prepared.frame(*PARTS)) == 3
    assert list(prepared.lines) == [
        "users: 3 rows read, 3 kept",
        f"  age: 1 value(s) ('NULL' at {path}:2) taken as missing: one of null_values",
        f"  age: 1 value(s) ('old' at {path}:3) taken as missing: no finite number of 32 bits",
        "interactions: 3 rows read, 3 kept",
    ]


def test_counts_add_up_over_several_files_and_stray_quotes(folder: Folder) -> None:
    folder.write("t/a.csv", 'user_id,item_id\n1,1\n2,"2\n3,3\n4,4"\n\n5,5\n')
    folder.write("t/deep/b.csv", "item_id,user_id\n6,6\n")
    path = folder.path / "t"
    prepared = folder.prepare({"path": str(path)})
    assert list(prepared.lines) == [
        "interactions: 4 rows read, 4 kept",
        "  rows of 2 files: a.csv 3, deep/b.csv 1",
        f"  1 row(s) span several lines, as quoted fields may; the longest is {path}/a.csv:3, "
        'over 3 lines (if quotation marks have no meaning in this table, set quote = "")',
        "  1 empty lines",
        f"interactions: item_id is read as text, since '2\\n3,3\\n4,4' at {path}/a.csv:3 is no "
        "integer",
    ]
    without = folder.prepare({"path": str(path), "quote": ""})
    assert list(without.lines)[:2] == [
        "interactions: 6 rows read, 6 kept",
        "  rows of 2 files: a.csv 5, deep/b.csv 1",
    ]


@pytest.mark.parametrize("plan", [Plan(), Plan(engine="disk", rows=3)])
@pytest.mark.parametrize("odd", ["007", "35.0", "1e21", "a"])
def test_ids_that_one_value_makes_text_are_said_with_its_place(
    folder: Folder, plan: Plan, odd: str
) -> None:
    rows = "".join(f"{n},{n}\n" for n in range(1, 10))
    path = folder.write("c.csv", f"user_id,item_id\n{rows}{odd},1\n")
    prepared = folder.prepare(plan=plan)
    assert users_of(prepared) == [*(str(n) for n in range(1, 10)), odd]
    assert list(prepared.lines)[1:] == [
        f"interactions: user_id is read as text, since {odd!r} at {path}:11 is no integer"
    ]


def test_ids_that_are_text_need_no_word(folder: Folder) -> None:
    folder.write("c.csv", "user_id,item_id\n1,a\nu2,b\nu3,c\n")
    assert list(folder.prepare().lines) == ["interactions: 3 rows read, 3 kept"]


@pytest.mark.parametrize("plan", [Plan(), Plan(engine="disk", rows=2)])
def test_rejected_rows_do_not_decide_what_ids_are(folder: Folder, plan: Plan) -> None:
    folder.write(
        "c.csv", "user_id,item_id,ts\n1,1,5\nuser_id,item_id,ts\n2,2,6\nx,y,soon\nNULL,3,7\n"
    )
    prepared = folder.prepare({"timestamp": "ts"}, quarantine=True, plan=plan)
    assert users_of(prepared) == [1, 2]
    assert prepared.items["item_id"].tolist() == [1, 2]
    assert list(prepared.lines)[:-1] == [
        "interactions: 5 rows read, 2 kept",
        "  1 rejected: repeats the header line",
        "  1 rejected: null user_id",
        "  1 rejected: unparsable user_id",
    ]
    rejected = pd.read_csv(folder.path / "rejects" / "interactions.csv", dtype=str)
    assert rejected["row"].tolist() == ["3", "5", "6"]


def test_ids_that_a_table_does_not_have_do_not_decide(folder: Folder) -> None:
    folder.write("c.csv", "user_id,item_id\n1,1\n2,2\n35.0,2\nx,2\n")
    users = {"path": folder.write("u.csv", "id\n1\n2\n"), "id": "id"}
    prepared = folder.prepare(data={"users": users}, quarantine=True)
    assert prepared.users["id"].tolist() == [1, 2]
    assert "  2 rejected: unparsable user_id" in prepared.lines


def test_where_everything_is_rejected_the_reasons_are_shown(folder: Folder) -> None:
    path = folder.write("c.csv", "user_id,item_id,ts\n1,1,soon\n2,2,never\n3\n")
    message = folder.message({"timestamp": "ts"}, quarantine=True)
    assert "expected at least one positive interaction, received none" in message
    assert "interactions: 1 x wrong number of fields" in message
    assert "interactions: 2 x unparsable ts (see timestamp_format)" in message
    assert f"{path}:2: unparsable ts (see timestamp_format): 'soon'" in message


def test_where_all_users_are_rejected_the_reasons_are_shown(folder: Folder) -> None:
    folder.write("c.csv", "user_id,item_id\n1,1\n2,2\n")
    path = folder.write("u.csv", "id\nNULL\nNA\n")
    message = folder.message(data={"users": {"path": path, "id": "id"}}, quarantine=True)
    assert "users: 2 x null id" in message
    assert f"{path}:2: null id: 'NULL'" in message
    assert "interactions: 2 x user_id not in the users table" in message


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("April 20, 2016", 1461110400.0),
        ("20.04.2016 13:05", 1461157500.0),
        ('"Wed, 20 Apr 2016 13:05:00 GMT"', 1461157500.0),
        ("20/04/2016 13:05", 1461157500.0),
        ("1461157500000", 1461157500000.0),
    ],
)
def test_times_in_common_forms_are_read(folder: Folder, times: str, expected: float) -> None:
    quoted = times if times[0] == '"' else f'"{times}"'
    folder.write("c.csv", f"user_id,item_id,ts\n1,1,{quoted}\n2,2,{quoted}\n")
    frame = folder.prepare({"timestamp": "ts"}).frame(*PARTS)
    assert frame["timestamp"].tolist() == [expected, expected]


def test_ambiguous_times_are_refused_until_their_form_is_said(folder: Folder) -> None:
    path = folder.write("c.csv", "user_id,item_id,ts\n1,1,04/05/2016\n2,2,05/04/2016\n")
    message = folder.message({"timestamp": "ts"})
    assert "2 x ts with the day or the month first (set timestamp_format)" in message
    assert f"{path}:2: ts with the day or the month first (set timestamp_format): '04/05/2016'" in (
        message
    )
    frame = folder.prepare({"timestamp": "ts", "timestamp_format": "%d/%m/%Y"}).frame(*PARTS)
    assert frame["user_id"].tolist() == [2, 1]


def test_numbers_that_cannot_be_held_are_rows_at_fault(folder: Folder) -> None:
    path = folder.path / "c.parquet"
    day = pa.array([0, 253402214400_000_000, 0, 0, 0], pa.timestamp("us"))
    rows = {
        "user_id": pa.array([1.0, 2.0, 1e21, 3.0, 4.0]),
        "item_id": pa.array([1, 2, 3, 4, 5]),
        "ts": day,
        "stars": pa.array([5.0, 5.0, 5.0, 1.8e308 * 10, 5.0]),
    }
    pq.write_table(pa.table(rows), path)
    table = {"path": str(path), "timestamp": "ts", "rating": "stars", "positive_rating": 4.0}
    message = folder.message(table)
    assert f"{path}:2: unparsable ts (see timestamp_format): Timestamp('9999-12-31" in message
    assert f"{path}:3: unparsable user_id: 1e+21" in message
    assert f"{path}:4: unparsable stars: inf" in message
    prepared = folder.prepare(table, quarantine=True)
    assert users_of(prepared) == [1, 4]
    rejected = pd.read_csv(folder.path / "rejects" / "interactions.csv", dtype=str)
    assert rejected["row"].tolist() == ["2", "3", "4"]


def test_a_number_too_large_for_a_time_is_a_row_at_fault(folder: Folder) -> None:
    path = folder.write("c.csv", "user_id,item_id,ts\n1,1,1e21\n2,2,5\n3,3,6\n")
    assert f"{path}:2: unparsable ts" in folder.message({"timestamp": "ts"})
    prepared = folder.prepare({"timestamp": "ts"}, quarantine=True)
    assert users_of(prepared) == [2, 3]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pd.arrays.SparseArray([1, 2]), [1, 2]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.Series([1, 2], dtype="Int64"), [1, 2]),
        (pd.Series([1, 2], dtype="int64[pyarrow]"), [1, 2]),
        (pd.Series(["a", "b"], dtype="string"), ["a", "b"]),
        (pd.Series([1.0, 2.0]), [1, 2]),
    ],
)
def test_ids_in_frames_are_read_however_they_are_stored(
    folder: Folder, ids: Any, expected: list[Any]
) -> None:
    frame = pd.DataFrame({"user_id": ids, "item_id": [1, 2]})
    prepared = folder.prepare(frames={"interactions": frame})
    assert users_of(prepared) == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([2**70, 1], "interactions.iloc:0: unparsable user_id: 1180591620717411303424"),
        (
            [b"a", b"b"],
            "received values of the type(s) bytes (b'a' at interactions.iloc:0); convert the "
            "column",
        ),
        (
            [1, "a"],
            "received values of the type(s) int (1 at interactions.iloc:0), str ('a' at "
            "interactions.iloc:1); convert the column",
        ),
    ],
)
def test_ids_in_frames_that_cannot_be_held_are_one_clear_line(
    folder: Folder, ids: Any, expected: str
) -> None:
    frame = pd.DataFrame({"user_id": ids, "item_id": [1, 2]})
    assert expected in folder.message(frames={"interactions": frame})


def test_columns_that_no_feature_reads_are_kept_whatever_they_hold(folder: Folder) -> None:
    clicks = pd.DataFrame({"user_id": [1, 2], "item_id": [1, 2]})
    items = pd.DataFrame(
        {
            "item_id": [1, 2],
            "raw": [b"x", b"y"],
            "when": pd.Series(["2020-01-01", None], dtype="datetime64[ns, Asia/Tokyo]"),
            "kind": pd.Categorical(["a", None]),
            "thin": pd.arrays.SparseArray([0, 5]),
        }
    )
    prepared = folder.prepare(frames={"interactions": clicks, "items": items})
    assert prepared.items["thin"].tolist() == [0, 5]
    assert prepared.items["kind"].tolist() == ["a", None]


def test_a_polars_frame_is_read(folder: Folder) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"user_id": ["a", "b"], "item_id": [1, 2]})
    assert users_of(folder.prepare(frames={"interactions": frame})) == ["a", "b"]
