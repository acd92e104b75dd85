from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.data.interactions import Tables, read_tables, tables_from_frames
from towers.errors import ConfigError, DataError
from towers.typed import parse

CLICKS = "user_id,item_id,ts\n1,10,5\n2,20,4\n1,20,3\n"


def make_config(tables: dict[str, Any] | None = None, **more: Any) -> RunConfig:
    data = {"interactions": {}} | (tables or {})
    return parse(RunConfig, {"data": data} | more, where="test")


def write(path: Path, content: str) -> str:
    path.write_text(content)
    return str(path)


def clicks(
    *rows: tuple[Any, Any], columns: tuple[str, str] = ("user_id", "item_id")
) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


def read_clicks(path: Path, content: str, **table: Any) -> Tables:
    return read_tables(make_config({"interactions": {"path": write(path, content)} | table}))


def test_ids_alone_are_enough(tmp_path: Path) -> None:
    tables = read_clicks(tmp_path / "clicks.csv", CLICKS, timestamp="ts")
    assert tables.interactions.to_dict("list") == {
        "user_id": [1, 2, 1],
        "item_id": [20, 20, 10],
        "timestamp": [3.0, 4.0, 5.0],
        "weight": [1.0, 1.0, 1.0],
    }
    assert tables.interactions["user_id"].dtype == np.int64
    assert tables.interactions["weight"].dtype == np.float32
    assert tables.users.to_dict("list") == {"user_id": [1, 2]}
    assert tables.items.to_dict("list") == {"item_id": [10, 20]}  # in the order of the file
    assert tables.test is None
    assert tables.report.lines() == ["interactions: 3 rows read, 3 kept"]


def test_the_same_tables_come_from_csv_parquet_and_frames(tmp_path: Path) -> None:
    users = pd.DataFrame({"id": ["a", "b"], "age": [30.5, np.nan], "tags": [["x", "y"], []]})
    rows = clicks(("a", 1), ("b", 2))
    rows.to_csv(tmp_path / "clicks.csv", index=False)
    rows.to_parquet(tmp_path / "clicks.parquet")
    (tmp_path / "users.csv").write_text("id,age,tags\na,30.5,x|y\nb,,\n")
    users.to_parquet(tmp_path / "users.parquet")
    features = [{"kind": "numeric", "column": "age"}, {"kind": "multi_valued", "column": "tags"}]

    def config(end: str) -> RunConfig:
        data = {
            "interactions": {"path": f"{tmp_path}/clicks.{end}"},
            "users": {"path": f"{tmp_path}/users.{end}", "id": "id"},
        }
        return make_config(data, user={"features": features})

    given = [
        read_tables(config("csv")),
        read_tables(config("parquet")),
        tables_from_frames(config("csv"), interactions=rows, users=users),
    ]
    for tables in given:
        pd.testing.assert_frame_equal(tables.interactions, given[0].interactions)
        pd.testing.assert_frame_equal(tables.users, given[0].users)
        pd.testing.assert_frame_equal(tables.items, given[0].items)
    assert given[0].users["tags"].tolist() == [["x", "y"], []]


def test_csv_ids_take_the_type_of_all_tables_together(tmp_path: Path) -> None:
    data = {
        "interactions": {"path": write(tmp_path / "clicks.csv", "user_id,item_id\n1,1\n2,2\n")},
        "users": {"path": write(tmp_path / "users.csv", "id\n1\n2\n03\n"), "id": "id"},
    }
    tables = read_tables(make_config(data))
    assert tables.interactions["user_id"].tolist() == ["1", "2"]
    assert tables.interactions["item_id"].tolist() == [1, 2]
    assert tables.users["id"].tolist() == ["1", "2", "03"]


def test_typed_ids_that_differ_are_refused() -> None:
    config = make_config({"items": {"id": "id"}})
    with pytest.raises(DataError, match=r"integers in column 'item_id'.*text in column 'id'"):
        tables_from_frames(
            config,
            interactions=clicks(("a", 1), ("b", 2)),
            items=pd.DataFrame({"id": ["1", "2"]}),
        )


def test_faults_of_all_tables_are_shown_at_once(tmp_path: Path) -> None:
    data = {
        "interactions": {
            "path": write(tmp_path / "c.csv", "user_id,item_id,ts\n1,1,x\n1,1,1\n2,1,1\n9,1,1\n"),
            "timestamp": "ts",
        },
        "users": {"path": write(tmp_path / "u.csv", "id\n1\n2\n2\n"), "id": "id"},
    }
    with pytest.raises(DataError) as raised:
        read_tables(make_config(data))
    message = str(raised.value)
    assert "users: 1 x duplicate id" in message
    assert "interactions: 1 x unparsable ts" in message
    assert f"{tmp_path}/u.csv:4: duplicate id: '2'" in message
    assert f"{tmp_path}/c.csv:2: unparsable ts: 'x'" in message
    assert f"{tmp_path}/c.csv:5: user_id not in the users table: '9'" in message


def test_quarantine_sets_faults_aside_and_accounts_for_every_row(tmp_path: Path) -> None:
    lines = ["user_id,item_id,ts,stars", "1,1,1,5", "1,1,1,5", "", "1,1,2,4", "2,2,1,1"]
    lines += ["2,3,oops,5", ",3,1,5", "2", "2,3,4,5"]
    data = {
        "interactions": {
            "path": write(tmp_path / "clicks.csv", "\n".join(lines)),
            "timestamp": "ts",
            "rating": "stars",
            "positive_rating": 4.0,
        },
        "on_bad_rows": "quarantine",
    }
    tables = read_tables(make_config(data), quarantine_dir=tmp_path / "rejects")
    assert tables.interactions[["user_id", "item_id"]].to_numpy().tolist() == [[1, 1], [2, 3]]
    assert tables.items["item_id"].tolist() == [1, 2, 3]  # an item that nobody liked is an item
    [report] = tables.report.tables
    assert report.rejected == {
        "wrong number of fields": 1,
        "null user_id": 1,
        "unparsable ts": 1,
        "duplicate interaction": 1,
    }
    counted = sum(report.rejected.values()) + report.not_positive + report.merged
    assert report.rows == 8 == report.kept + counted
    assert report.empty_lines == 1
    rejected = pd.read_csv(tmp_path / "rejects" / "interactions.csv", dtype=str)
    assert rejected["row"].tolist() == ["9", "3", "7", "8"]
    assert tables.report.lines() == [
        "interactions: 8 rows read, 2 kept",
        "  1 empty lines",
        "  1 not positive: rating below positive_rating",
        "  1 repeats of a user and an item, merged into the earliest",
        "  1 rejected: wrong number of fields",
        "  1 rejected: null user_id",
        "  1 rejected: unparsable ts",
        "  1 rejected: duplicate interaction",
        f"  rejected rows are in {tmp_path}/rejects/interactions.csv",
    ]


def test_interactions_of_a_quarantined_user_are_set_aside_too() -> None:
    config = make_config(
        {"users": {"id": "id"}, "on_bad_rows": "quarantine"},
        user={"features": [{"kind": "numeric", "column": "age"}]},
    )
    tables = tables_from_frames(
        config,
        interactions=clicks((1, 1), (2, 2), (3, 3)),
        users=pd.DataFrame({"id": [1, 2, 3], "age": ["30", "old", "40"]}),
    )
    assert tables.users["id"].tolist() == [1, 3]
    assert tables.interactions["user_id"].tolist() == [1, 3]
    assert [table.rejected for table in tables.report.tables] == [
        {"unparsable age": 1},
        {"user_id not in the users table": 1},
    ]


def test_test_interactions_have_a_table_of_their_own() -> None:
    config = make_config(split={"test": {"user": "u", "item": "i"}})
    tables = tables_from_frames(
        config,
        interactions=clicks((1, 1), (2, 2)),
        test=clicks((1, 1), (1, 5), (7, 2), columns=("u", "i")),
    )
    assert tables.test is not None
    assert tables.test[["user_id", "item_id"]].to_numpy().tolist() == [[1, 5], [7, 2]]
    assert tables.users["user_id"].tolist() == [1, 2, 7]
    assert tables.items["item_id"].tolist() == [1, 2, 5]
    assert tables.report.lines()[1:] == [
        "test: 3 rows read, 2 kept",
        "  1 left out of the test: the user has the item in training",
    ]


def test_test_interactions_that_are_all_in_training_are_refused() -> None:
    rows = clicks((1, 1), (2, 2))
    with pytest.raises(DataError, match=r"test.*received none.*2 repeat a training interaction"):
        tables_from_frames(make_config(), interactions=rows, test=rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 1), (1, 2)], "at least two users, received those of one, 1;"),
        ([("a", 1), ("b", 1)], "at least two items, received those of one, 1;"),
        ([], "at least one positive interaction, received none"),
    ],
)
@pytest.mark.parametrize("on_bad_rows", ["fail", "quarantine"])
def test_too_little_to_learn_from_is_refused(
    rows: list[tuple[Any, Any]], message: str, on_bad_rows: str
) -> None:
    config = make_config({"on_bad_rows": on_bad_rows})
    with pytest.raises(DataError, match=message):
        tables_from_frames(config, interactions=clicks(*rows))


def test_ratings_that_are_all_too_low_are_named() -> None:
    config = make_config({"interactions": {"rating": "r", "positive_rating": 9.0}})
    rows = clicks((1, 1), (2, 2)).assign(r=5)
    with pytest.raises(DataError, match="2 have a rating below positive_rating"):
        tables_from_frames(config, interactions=rows)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"interactions \(.*\['user_id'\].*\['who', 'item_id'\]"):
        read_clicks(tmp_path / "clicks.csv", "who,item_id\n1,1\n")
    config = make_config(
        {"users": {"id": "id"}}, user={"features": [{"kind": "categorical", "column": "city"}]}
    )
    with pytest.raises(ConfigError, match=r"users \(.*\['city'\].*\['id'\]"):
        tables_from_frames(config, interactions=clicks((1, 1)), users=pd.DataFrame({"id": [1]}))
    config = make_config(user={"features": [{"kind": "categorical", "column": "city"}]})
    with pytest.raises(ConfigError, match=r"table of users with the column\(s\) \['city'\]"):
        tables_from_frames(config, interactions=clicks((1, 1)))


def test_tables_that_are_configured_must_be_given() -> None:
    config = make_config({"items": {"id": "id", "path": "items.csv"}})
    with pytest.raises(ConfigError, match=r"items: .*received no DataFrame; pass items=\.\.\."):
        tables_from_frames(config, interactions=clicks((1, 1)))
    with pytest.raises(ConfigError, match="interactions: expected the path"):
        read_tables(make_config())


def test_a_frame_without_a_configured_table_goes_by_the_ids_of_the_interactions() -> None:
    tables = tables_from_frames(
        make_config(),
        interactions=clicks((1, 1), (2, 2)),
        items=pd.DataFrame({"title": ["one", "two"], "item_id": [1, 2]}),
    )
    assert tables.items.to_dict("list") == {"item_id": [1, 2], "title": ["one", "two"]}


def test_the_frames_that_are_given_stay_as_they_are() -> None:
    rows = clicks(("1", "1"), ("2", "2")).assign(ts=["2020-01-02", "2020-01-01"])
    before = rows.copy()
    config = make_config({"interactions": {"timestamp": "ts"}})
    tables = tables_from_frames(config, interactions=rows)
    pd.testing.assert_frame_equal(rows, before)
    assert tables.interactions["user_id"].tolist() == ["2", "1"]  # text with a type stays text
