"""Tables as they are given, and what becomes of them; see `test_prepare_blocks` for how."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared, prepare
from towers.errors import ConfigError, DataError
from towers.typed import parse

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

EVERYTHING = {"test_fraction": 0.0, "validation_fraction": 0.0}
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


Make = Callable[..., Prepared]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Prepare the files that a configuration names, or DataFrames."""

    def make(config: RunConfig, **frames: pd.DataFrame) -> Prepared:
        folder = tmp_path / f"prepared-{len(list(tmp_path.glob('prepared-*')))}"
        rejects = tmp_path / "rejects"
        return prepare(config, folder, frames=frames or None, quarantine_dir=rejects)

    return make


def pairs(prepared: Prepared, *parts: Any) -> list[tuple[Any, Any]]:
    frame = prepared.frame(*(parts or PARTS))
    return list(zip(frame["user_id"].tolist(), frame["item_id"].tolist(), strict=True))


def test_ids_alone_are_enough(tmp_path: Path, make: Make) -> None:
    table = {"path": write(tmp_path / "clicks.csv", CLICKS), "timestamp": "ts"}
    prepared = make(make_config({"interactions": table}, split=EVERYTHING))
    rows = prepared.frame("train")
    assert rows.to_dict("list") == {
        "user_id": [1, 2, 1],
        "item_id": [20, 20, 10],
        "timestamp": [3.0, 4.0, 5.0],
        "weight": [1.0, 1.0, 1.0],
    }
    assert rows.dtypes.tolist() == [np.int64, np.int64, np.float64, np.float32]
    assert prepared.users.to_dict("list") == {"user_id": [1, 2]}
    assert prepared.items.to_dict("list") == {"item_id": [10, 20]}  # in the order of the file
    assert prepared.lines == ("interactions: 3 rows read, 3 kept",)
    assert prepared.counts == {"users": 2, "items": 2, "train": 3, "validation": 0, "test": 0}


def test_the_same_tables_come_from_csv_parquet_and_frames(tmp_path: Path, make: Make) -> None:
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
        make(config("csv")),
        make(config("parquet")),
        make(config("csv"), interactions=rows, users=users),
    ]
    for prepared in given:
        pd.testing.assert_frame_equal(prepared.frame(*PARTS), given[0].frame(*PARTS))
        pd.testing.assert_frame_equal(prepared.users, given[0].users)
        pd.testing.assert_frame_equal(prepared.items, given[0].items)
    assert [tags.tolist() for tags in given[0].users["tags"]] == [["x", "y"], []]


def test_csv_ids_take_the_type_of_all_tables_together(tmp_path: Path, make: Make) -> None:
    data = {
        "interactions": {"path": write(tmp_path / "clicks.csv", "user_id,item_id\n1,1\n2,2\n")},
        "users": {"path": write(tmp_path / "users.csv", "id\n1\n2\n03\n"), "id": "id"},
    }
    prepared = make(make_config(data))
    assert pairs(prepared) == [("1", 1), ("2", 2)]
    assert prepared.users["id"].tolist() == ["1", "2", "03"]


def test_typed_ids_that_differ_are_refused(make: Make) -> None:
    config = make_config({"items": {"id": "id"}})
    with pytest.raises(DataError, match=r"integers in column 'item_id'.*text in column 'id'"):
        make(
            config,
            interactions=clicks(("a", 1), ("b", 2)),
            items=pd.DataFrame({"id": ["1", "2"]}),
        )


def test_faults_of_all_tables_are_shown_at_once(tmp_path: Path, make: Make) -> None:
    data = {
        "interactions": {
            "path": write(tmp_path / "c.csv", "user_id,item_id,ts\n1,1,x\n1,1,1\n2,1,1\n9,1,1\n"),
            "timestamp": "ts",
        },
        "users": {"path": write(tmp_path / "u.csv", "id\n1\n2\n2\n"), "id": "id"},
    }
    with pytest.raises(DataError) as raised:
        make(make_config(data))
    message = str(raised.value)
    assert "users: 1 x duplicate id" in message
    assert "interactions: 1 x unparsable ts (see timestamp_format)" in message
    assert f"{tmp_path}/u.csv:4: duplicate id: '2'" in message
    assert f"{tmp_path}/c.csv:2: unparsable ts (see timestamp_format): 'x'" in message
    assert f"{tmp_path}/c.csv:5: user_id not in the users table: '9'" in message


def test_quarantine_sets_faults_aside_and_accounts_for_every_row(
    tmp_path: Path, make: Make
) -> None:
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
    prepared = make(make_config(data))
    assert pairs(prepared) == [(1, 1), (2, 3)]
    seen = prepared.interactions("train", "validation", "test").seen_of(np.arange(2))
    assert seen.toarray().tolist() == [[True, False, False], [False, True, True]]
    assert prepared.items["item_id"].tolist() == [1, 2, 3]  # an item that nobody liked is an item
    rejected = pd.read_csv(tmp_path / "rejects" / "interactions.csv", dtype=str)
    assert rejected["row"].tolist() == ["9", "3", "7", "8"]
    assert list(prepared.lines) == [
        "interactions: 8 rows read, 2 kept",
        "  1 empty lines",
        "  1 not positive, but kept: rating below positive_rating, or another behaviour",
        "  1 repeats of a user and an item, merged into the earliest",
        "  1 rejected: wrong number of fields",
        "  1 rejected: null user_id",
        "  1 rejected: unparsable ts (see timestamp_format)",
        "  1 rejected: duplicate interaction",
        f"  rejected rows are in {tmp_path}/rejects/interactions.csv",
    ]


def test_interactions_of_a_quarantined_user_are_set_aside_too(make: Make) -> None:
    config = make_config(
        {"users": {"id": "id"}, "on_bad_rows": "quarantine"},
        user={"features": [{"kind": "numeric", "column": "age"}]},
    )
    prepared = make(
        config,
        interactions=clicks((1, 1), (2, 2), (3, 3)),
        users=pd.DataFrame({"id": [1, 2.5, 3], "age": ["30", "50", "40"]}),
    )
    assert prepared.users["id"].tolist() == [1, 3]
    assert pairs(prepared) == [(1, 1), (3, 3)]
    assert [line for line in prepared.lines if "rejected:" in line] == [
        "  1 rejected: unparsable id",
        "  1 rejected: user_id not in the users table",
    ]


def test_test_interactions_have_a_table_of_their_own(make: Make) -> None:
    config = make_config(split={"test": {"user": "u", "item": "i"}})
    prepared = make(
        config,
        interactions=clicks((1, 1), (2, 2)),
        test=clicks((1, 1), (1, 5), (7, 2), columns=("u", "i")),
    )
    assert pairs(prepared, "test") == [(1, 5), (7, 2)]
    assert pairs(prepared, "train") == [(1, 1), (2, 2)]
    assert prepared.users["user_id"].tolist() == [1, 2, 7]
    assert prepared.items["item_id"].tolist() == [1, 2, 5]
    assert list(prepared.lines)[1:] == [
        "test: 3 rows read, 2 kept",
        "  1 left out of the test: the user has the item in training",
    ]


def test_test_interactions_that_are_all_in_training_are_refused(make: Make) -> None:
    rows = clicks((1, 1), (2, 2))
    with pytest.raises(DataError, match=r"test.*received none.*2 repeat a training interaction"):
        make(make_config(), interactions=rows, test=rows)


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
    rows: list[tuple[Any, Any]], message: str, on_bad_rows: str, make: Make
) -> None:
    config = make_config({"on_bad_rows": on_bad_rows})
    with pytest.raises(DataError, match=message):
        make(config, interactions=clicks(*rows))


def test_ratings_that_are_all_too_low_are_named(make: Make) -> None:
    config = make_config({"interactions": {"rating": "r", "positive_rating": 9.0}})
    rows = clicks((1, 1), (2, 2)).assign(r=5)
    with pytest.raises(DataError, match="2 have a rating below positive_rating"):
        make(config, interactions=rows)


def test_missing_columns_are_named(tmp_path: Path, make: Make) -> None:
    with pytest.raises(ConfigError, match=r"interactions \(.*\['user_id'\].*\['who', 'item_id'\]"):
        path = write(tmp_path / "clicks.csv", "who,item_id\n1,1\n")
        make(make_config({"interactions": {"path": path}}))
    config = make_config(
        {"users": {"id": "id"}}, user={"features": [{"kind": "categorical", "column": "city"}]}
    )
    with pytest.raises(ConfigError, match=r"users \(.*\['city'\].*\['id'\]"):
        make(config, interactions=clicks((1, 1)), users=pd.DataFrame({"id": [1]}))
    config = make_config(user={"features": [{"kind": "categorical", "column": "city"}]})
    with pytest.raises(ConfigError, match=r"table of users with the column\(s\) \['city'\]"):
        make(config, interactions=clicks((1, 1)))


def test_tables_that_are_configured_must_be_given(make: Make) -> None:
    config = make_config({"items": {"id": "id", "path": "items.csv"}})
    with pytest.raises(ConfigError, match=r"items: .*received no DataFrame; pass items=\.\.\."):
        make(config, interactions=clicks((1, 1)))
    with pytest.raises(ConfigError, match="interactions: expected the path"):
        make(make_config())


def test_a_frame_without_a_configured_table_goes_by_the_ids_of_the_interactions(make: Make) -> None:
    prepared = make(
        make_config(),
        interactions=clicks((1, 1), (2, 2)),
        items=pd.DataFrame({"title": ["one", "two"], "item_id": [1, 2]}),
    )
    assert prepared.items.to_dict("list") == {"item_id": [1, 2], "title": ["one", "two"]}


def test_the_frames_that_are_given_stay_as_they_are(make: Make) -> None:
    rows = clicks(("1", "1"), ("2", "2")).assign(ts=["2020-01-02", "2020-01-01"])
    before = rows.copy()
    config = make_config({"interactions": {"timestamp": "ts"}}, split=EVERYTHING)
    prepared = make(config, interactions=rows)
    pd.testing.assert_frame_equal(rows, before)
    assert pairs(prepared) == [("2", "2"), ("1", "1")]  # text with a type stays text


def test_it_splits_by_time(tiny: Tiny, prepared: Prepared) -> None:
    n = len(tiny.tables["interactions"])
    n_rest = round(n * 0.8)
    assert prepared.counts == {
        "users": 60,
        "items": 40,
        "train": round(n_rest * 0.9),
        "validation": n_rest - round(n_rest * 0.9),
        "test": n - n_rest,
    }
    times = [prepared.frame(part)["timestamp"] for part in PARTS]
    for earlier, later in itertools.pairwise(times):
        assert earlier.max() < later.min()
    assert prepared.lines[0] == "users: 60 rows read, 60 kept"
    both = prepared.frame("train", "validation")["timestamp"]
    assert both.is_monotonic_increasing
    assert len(both) == n_rest


def test_missing_values_are_kept(tiny: Tiny, make: Make) -> None:
    users = tiny.tables["users"].astype({"age": "Int64", "city": object})
    users.loc[3, "age"], users.loc[4, "city"] = pd.NA, None
    prepared = make(tiny.config(), **{**tiny.tables, "users": users})
    assert prepared.users["age"].isna().tolist() == (prepared.users.index == 3).tolist()
    assert prepared.users["city"][4] is None


def test_parts_that_may_not_be_looked_at_are_empty(prepared: Prepared) -> None:
    blind = dataclasses.replace(prepared, parts=("train", "validation"))
    assert blind.counts == prepared.counts | {"test": 0}
    assert blind.interactions("test").user_counts.sum() == 0
    assert len(blind.frame("test")) == 0
    assert len(blind.frame(*PARTS)) == len(prepared.frame("train", "validation"))


def test_a_column_of_several_types_is_refused(tiny: Tiny, make: Make, tmp_path: Path) -> None:
    items = tiny.tables["items"].assign(extra=[1, "one"] * 20)
    with pytest.raises(DataError, match=r"items: expected values of one type.*column 'extra'"):
        make(tiny.config(), **{**tiny.tables, "items": items})
    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides_on_a_random_split(make: Make) -> None:
    rows = clicks(*((user, item) for user in (1, 2) for item in range(50)))

    def test_part(seed: int) -> list[Any]:
        return pairs(make(make_config(seed=seed), interactions=rows), "test")

    assert test_part(3) == test_part(3)
    assert test_part(3) != test_part(4)
    assert {item for _, item in test_part(3)} != set(range(10))


def test_at_random_a_user_is_divided_whoever_else_is_there(make: Make) -> None:
    rows = clicks(*((user, item) for user in (1, 2, 3) for item in range(9)))
    whole = make(make_config(), interactions=rows)
    fewer = make(make_config(), interactions=rows[rows["user_id"] != 2].iloc[::-1])
    for part in PARTS:
        expected = [pair for pair in pairs(whole, part) if pair[0] != 2]
        assert sorted(pairs(fewer, part)) == sorted(expected)


def test_a_faulty_row_makes_no_duplicate_of_a_later_one(make: Make) -> None:
    interactions = {"interactions": {"weight": "w"}, "on_bad_rows": "quarantine"}
    rows = clicks((1, 1), (1, 1), (2, 2), (2, 2)).assign(w=[0, 1, 1, 1])
    prepared = make(make_config(interactions), interactions=rows)
    assert [line for line in prepared.lines if "rejected:" in line] == [
        "  1 rejected: w not a positive number",
        "  1 rejected: duplicate interaction",
    ]
    assert pairs(prepared) == [(1, 1), (2, 2)]
