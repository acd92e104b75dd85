"""Preparation in many chunks and blocks: it is what comes of one chunk and one block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data.blocks import PARTS, every_positive
from pipelines.data.engines import Plan
from pipelines.data.hold_out import TrainedOn
from pipelines.data.prepare import prepare
from pipelines.spark.tasks import Outcome, Task
from serving.version.seen import write_pairs
from tests.examples import examples
from tests.pipelines.data.prepare_support import (
    Given,
    assert_same,
    message_of,
    outcome_of,
    write_shards,
)
from towers.errors import ConfigError
from towers.features.schema import SIDES, Side

INF = float("inf")
IDS: dict[str, list[Any]] = {
    "integer": [1, 2, 3, 4, 5, -7, 2**40, None],
    "text": ["a", "b", "c", "dé", "1", "\0", "", None],
}
TIMES: dict[str, tuple[list[Any], pa.DataType]] = {
    "integer": ([0, 1, 2, 3, 3, 2**40, None], pa.int64()),
    "float": ([0.0, -0.0, 0.5, 1e300, INF, float("nan"), None], pa.float64()),
    "text": (["1", "2", "2020-01-01", "2020-01-01T00:00:01Z", "soon", "", None], pa.string()),
    "date": ([pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01"), None], pa.timestamp("us")),
}
EXTRA: dict[str, list[Any]] = {
    "did": ["buy", "buy", "gift", "hide", "scroll", None],
    "hour": ["7", "12", "late", "", None],
}
BEHAVIOURS = {
    "buy": {"role": "target"},
    "gift": {"role": "target", "weight": 2.0},
    "hide": {"role": "negative"},
}
NUMBERS = [0.0, 0.5, 1.0, 2.0, 5.0, float("nan"), INF, None]


@st.composite
def cases(draw: st.DrawFn, *, faults: bool = True) -> dict[str, Any]:
    """Tables as columns with their types, and the settings that they need.

    Without faults they are accepted, nearly always.
    """
    kinds = {side: draw(st.sampled_from(sorted(IDS))) for side in ("user", "item")}
    time = draw(st.sampled_from([None, *TIMES]))
    bad = faults and draw(st.booleans())
    fewest = 0 if faults else 8
    extra = draw(st.sets(st.sampled_from(["did", "hour"])))

    def value(values: list[Any]) -> st.SearchStrategy[Any]:
        good = [v for v in values if v not in {"", "soon"} and not pd.isna(v) and v != INF]
        return st.sampled_from(values if bad else good)

    types = {side: pa.int64() if kind == "integer" else pa.string() for side, kind in kinds.items()}

    def table() -> tuple[list[tuple[Any, ...]], pa.Schema, dict[str, Any]]:
        columns = {side: value(IDS[kinds[side]]) for side in ("user", "item")}
        fields, named = dict(types), {"user": "user", "item": "item"}
        if time is not None:
            columns["when"], (_, fields["when"]) = value(TIMES[time][0]), TIMES[time]
            named["timestamp"] = "when"
        for name in sorted(extra):
            columns[name], fields[name] = value(EXTRA[name]), pa.string()
        named |= {"event": "did"} if "did" in extra else {}
        roles = ["weight"] if "did" in extra else ["rating", "weight"]
        for role in draw(st.sets(st.sampled_from(roles))):
            columns[role], fields[role] = value(NUMBERS), pa.float64()
            named[role] = role
        more = {"positive_rating": 1.0} if "rating" in named else {}
        rows = draw(
            st.lists(st.tuples(*columns.values()), min_size=fewest, max_size=25, unique=not faults)
        )
        return rows, pa.schema(list(fields.items())), named | more

    entities = {}
    for side in draw(st.sets(st.sampled_from(["user", "item"]))):
        ids = draw(st.lists(value(IDS[kinds[side]]), min_size=2, max_size=9))
        entities[side] = (ids, types[side])
    return {
        "interactions": table(),
        "test": table() if draw(st.booleans()) else None,
        "entities": entities,
        "cuts": draw(st.lists(st.integers(0, 25), max_size=2)),
        "by": draw(st.sampled_from([None, "random", *(["time"] if time else [])])),
        "extra": extra,
        "on_bad_rows": draw(st.sampled_from(["fail", "quarantine"])),
        "seed": draw(st.integers(0, 3)),
        "rows": draw(st.integers(1, 9)),
    }


def write_case(folder: Path, case: dict[str, Any]) -> Given:
    described: dict[str, dict[str, Any]] = {}
    for name in ("interactions", "test"):
        if case[name] is not None:
            rows, schema, named = case[name]
            frame = pd.DataFrame(rows, columns=schema.names, dtype=object)
            write_shards(folder / name, frame, cuts=case["cuts"], schema=schema)
            described[name] = {"path": str(folder / name)} | named
    for side, (ids, kind) in case["entities"].items():
        table = pa.table({"id": pa.array(ids, kind), "note": [str(i) for i in range(len(ids))]})
        pq.write_table(table, folder / f"{side}s.parquet")
        described[f"{side}s"] = {"path": str(folder / f"{side}s.parquet"), "id": "id"}
    split: dict[str, Any] = {"test_fraction": 0.3, "validation_fraction": 0.3}
    split |= {"by": case["by"]} if case["by"] else {}
    split |= {"test": described.pop("test")} if case["test"] is not None else {}
    data = described | {"on_bad_rows": case["on_bad_rows"]}
    settings = {"data": data, "split": split, "seed": case["seed"]}
    if "did" in case["extra"]:
        data["behaviours"] = BEHAVIOURS
    if "hour" in case["extra"]:
        settings["context"] = {"features": [{"kind": "categorical", "column": "hour"}]}
    return Given(folder=folder, settings=settings)


@pytest.mark.slow
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_many_blocks_are_what_comes_in_one(
    tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]
) -> None:
    tables = write_case(tmp_path_factory.mktemp("tables"), case)
    expected = outcome_of(tables.whole)
    received = outcome_of(lambda: tables.blocked(case["rows"]))
    whole, blocked = tables.folder / "rejects-whole", tables.folder / "rejects-blocked"
    assert contents(blocked) == contents(whole)
    if isinstance(expected, str) or isinstance(received, str):
        assert received == expected
        assert not (tables.folder / "blocked").exists()
        assert not (tables.folder / ".blocked").exists()
    else:
        assert_same(expected, received)


@st.composite
def versions(
    draw: st.DrawFn, case: dict[str, Any]
) -> tuple[dict[Side, Any], list[tuple[Any, ...]]]:
    """Ids of an earlier version, one of each side not in the tables; and rows of its positives."""
    ids: dict[Side, Any] = {}
    for side in SIDES:
        is_integer = pa.types.is_integer(case["interactions"][1].field(side).type)
        values = [*IDS["integer" if is_integer else "text"], 2**50 if is_integer else "gone"]
        ids[side] = np.array(
            [v for v in values if v is not None], np.int64 if is_integer else object
        )
    rows = st.tuples(*(st.integers(0, len(ids[side]) - 1) for side in SIDES))
    return ids, draw(st.lists(rows, max_size=60))


@pytest.mark.slow
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), case=cases(faults=False), size=st.sampled_from([7, 100]))
def test_what_a_version_was_trained_on_is_not_held_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, case: dict[str, Any], size: int
) -> None:
    tables = write_case(tmp_path_factory.mktemp("tables"), case)
    ids, rows = data.draw(versions(case))
    users, items = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    write_pairs(tables.folder / "seen.parquet", ((users[part], items[part]) for part in parts))
    version = TrainedOn(version=3, ids=ids, path=tables.folder / "seen.parquet")
    whole = outcome_of(lambda: tables.whole(version))
    received = outcome_of(lambda: tables.blocked(case["rows"], trained_on=version))
    if isinstance(whole, str) or isinstance(received, str):
        assert received == whole
        return
    assert_same(whole, received)
    known = set(zip(ids["user"][users], ids["item"][items], strict=True))
    without = Given(folder=tables.folder / "without", settings=tables.settings).whole()
    moved = 0
    for part in ("validation", "test"):
        assert known.isdisjoint(pairs(whole.frame(part)))
        before = pairs(without.frame(part))
        assert pairs(whole.frame(part)) == before - known
        moved += len(before & known)
    assert pairs(whole.frame("train")) == pairs(without.frame("train")) | (
        known & pairs(without.frame("validation", "test"))
    )
    said = [line for line in whole.lines if "would have been held out" in line]
    assert said == ([version.message(moved)] if moved else [])


def test_what_moves_from_the_test_comes_after_the_training_rows_of_a_user(tmp_path: Path) -> None:
    """Without times, and where the rows have the same place in either table."""
    n, schema = 200, pa.schema({"user": pa.int64(), "item": pa.int64()})
    named = {"user": "user", "item": "item"}
    case: dict[str, Any] = {
        "interactions": ([*((user, 2) for user in range(n)), (n, 1)], schema, named),
        "test": ([(user, 1) for user in range(n)], schema, named),
        "entities": {"user": (range(n + 1), pa.int64()), "item": ([1, 2], pa.int64())},
        "cuts": [],
        "by": "random",
        "extra": set(),
        "on_bad_rows": "fail",
        "seed": 0,
    }
    tables = write_case(tmp_path, case)
    ids: dict[Side, Any] = {"user": np.arange(n), "item": np.array([1, 2])}
    write_pairs(tmp_path / "seen.parquet", [(np.arange(n), np.zeros(n, np.int64))])
    version = TrainedOn(version=3, ids=ids, path=tmp_path / "seen.parquet")
    for prepared in (tables.whole(version), tables.blocked(50, trained_on=version)):
        found = every_positive(prepared.interactions("train"))
        assert found.indices.tolist() == [1, 0] * n + [0]


def pairs(frame: pd.DataFrame) -> set[tuple[Any, Any]]:
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder."""
    found = folder.glob("*") if folder.exists() else []
    return {path.name: path.read_bytes().decode() for path in found}


def unsteady(step: Task, count: int) -> Iterator[tuple[int, Outcome]]:
    """Run steps backwards, and each twice, as a cluster that loses machines may."""
    for number in reversed(range(count)):
        step(number)
        yield number, step(number)


def broken(step: Task, count: int) -> Iterator[tuple[int, Outcome]]:
    """Give up at the second chunk or block."""
    yield 0, step(0)
    raise KeyboardInterrupt


def clicks(folder: Path, rows: pd.DataFrame, **more: Any) -> Given:
    """Interactions in shards of four rows, with their times."""
    schema = pa.schema({"user_id": pa.int64(), "item_id": pa.string(), "time": pa.int64()})
    cuts = list(range(4, len(rows), 4))
    write_shards(folder / "clicks", rows, cuts=cuts, schema=schema)
    table = {"path": str(folder / "clicks"), "timestamp": "time"}
    data = {"interactions": table} | more.pop("data", {})
    return Given(folder=folder, settings={"data": data} | more)


ROWS = pd.DataFrame(
    {
        "user_id": [1, 2, 3, 1, 1, 2, None, 3, 3, 1, 2, 4] * 2,
        "item_id": ["a", "b", "a", "c", "a", "c", "a", "b", "c", "b", None, "d"] * 2,
        "time": [*range(12), *range(5), *range(7, 14)],
    },
    dtype=object,
)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["time", "random"])
def test_steps_may_be_done_again_and_in_any_order(tmp_path: Path, by: str) -> None:
    given = clicks(tmp_path, ROWS, split={"by": by}, data={"on_bad_rows": "quarantine"})
    whole, blocked = given.whole(), given.blocked(6, run_step=unsteady)
    assert_same(whole, blocked)
    assert blocked.interactions("train").n_blocks == 4
    assert any("duplicate interaction" in line for line in whole.lines)
    assert contents(tmp_path / "rejects-blocked") == contents(tmp_path / "rejects-whole")
    assert {path.name for path in (tmp_path / "blocked").iterdir()} == {
        "users.parquet",
        "items.parquet",
        "lines.json",
        "blocks",
    }


def test_faults_are_told_alike(tmp_path: Path) -> None:
    given = clicks(tmp_path, ROWS)
    expected = message_of(given.whole)
    assert "clicks/1.parquet:3: null user_id: None" in expected
    assert "duplicate interaction" in expected
    assert message_of(given.blocked) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"clicks"}


def test_a_job_that_ends_early_leaves_no_folder_and_is_repeated(tmp_path: Path) -> None:
    given = clicks(tmp_path, ROWS, data={"on_bad_rows": "quarantine"})
    (tmp_path / ".blocked" / "work").mkdir(parents=True)  # of one that was killed
    with pytest.raises(KeyboardInterrupt):
        given.blocked(run_step=broken)
    assert {path.name for path in tmp_path.iterdir()} == {"clicks"}
    assert given.blocked().counts["users"] == 4


@pytest.mark.slow
def test_a_frame_and_csv_come_in_blocks_too(tmp_path: Path) -> None:
    rows = ROWS.dropna().astype({"user_id": int, "time": int})
    rows.to_csv(tmp_path / "clicks.csv", index=False)
    table = {"path": str(tmp_path / "clicks.csv"), "timestamp": "time"}
    data = {"interactions": table, "on_bad_rows": "quarantine"}
    given = Given(folder=tmp_path, settings={"data": data})
    whole = given.whole()
    assert_same(whole, given.blocked())
    plan = Plan(engine="disk", rows=5)
    frames = {"interactions": rows}
    framed = prepare(given.config, tmp_path / "framed", plan=plan, frames=frames)
    assert framed.counts == whole.counts
    pd.testing.assert_frame_equal(framed.frame(*PARTS), given.blocked(name="again").frame(*PARTS))


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    given = clicks(tmp_path, ROWS.iloc[:3])
    given.settings["data"]["interactions"]["user"] = "customer"
    expected = message_of(given.whole)
    assert "['customer']" in expected
    assert message_of(given.blocked) == expected


def test_times_to_split_by_must_be_there(tmp_path: Path) -> None:
    given = clicks(tmp_path, ROWS.iloc[:3], split={"by": "time"})
    del given.settings["data"]["interactions"]["timestamp"]
    with pytest.raises(ConfigError, match="expected timestamps to split by time"):
        given.blocked()
    assert not (tmp_path / ".blocked").exists()


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    given = clicks(tmp_path, ROWS.iloc[:2], split={"test_fraction": 0.9})
    assert "expected training interactions, received none" in message_of(given.whole)
    assert message_of(given.blocked) == message_of(given.whole)
