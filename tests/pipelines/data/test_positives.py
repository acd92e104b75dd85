from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import InteractionsTable
from pipelines.data.positives import (
    CheckedInteractions,
    PositiveCounts,
    check_interactions,
    take_positives,
)
from pipelines.data.tables import wrap_frame
from towers.schema import Side

ALL = InteractionsTable(
    user="u", item="i", timestamp="t", rating="r", positive_rating=3.0, weight="w"
)
ROW: dict[str, Any] = {"u": "a", "i": "x", "t": 1, "r": 5, "w": 1}
PAIRS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3), st.booleans()),
    max_size=12,
)


def check(
    *rows: dict[str, Any],
    table: InteractionsTable = ALL,
    known: dict[Side, list[str]] | None = None,
) -> CheckedInteractions:
    frame = pd.DataFrame([ROW | row for row in rows])
    return check_interactions(
        wrap_frame(frame, name="interactions"),
        table,
        id_kinds={"user": "text", "item": "text"},
        known_ids={side: pd.Index(ids) for side, ids in (known or {}).items()},
    )


def test_good_rows_are_parsed() -> None:
    checked = check({"r": "2.9", "w": "0.5"}, {"i": "y", "t": "7", "r": "3"})
    rows = checked.rows
    assert rows["user_id"].tolist() == ["a", "a"]
    assert rows["timestamp"].tolist() == [1.0, 7.0]
    assert rows["weight"].tolist() == [0.5, 1.0]
    assert rows["weight"].dtype == np.float32
    assert rows["is_positive"].tolist() == [False, True]
    assert checked.rejects.counts() == {}


def test_only_the_configured_columns_are_read() -> None:
    checked = check({"t": "x", "r": "x", "w": "x"}, table=InteractionsTable(user="u", item="i"))
    assert list(checked.rows) == ["user_id", "item_id", "weight", "is_positive"]
    assert checked.rows["weight"].tolist() == [1.0]
    assert checked.rows["is_positive"].tolist() == [True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"u": ""}, "null u"),
        ({"i": None}, "null i"),
        ({"t": None}, "null t"),
        ({"t": "soon"}, "unparsable t"),
        ({"r": ""}, "null r"),
        ({"r": "good"}, "unparsable r"),
        ({"w": ""}, "null w"),
        ({"w": "inf"}, "unparsable w"),
        ({"w": "0"}, "w not a positive number"),
        ({"w": "-1"}, "w not a positive number"),
        ({"w": "1e300"}, "w not a positive number"),
        ({"w": "1e-300"}, "w not a positive number"),
        ({"u": "b"}, "u not in the users table"),
        ({"i": "y"}, "i not in the items table"),
        ({"r": 1}, "duplicate interaction"),
    ],
)
def test_each_fault_has_its_reason(row: dict[str, Any], reason: str) -> None:
    checked = check({}, row, {"t": 2}, known={"user": ["a"], "item": ["x"]})
    assert checked.rejects.counts() == {reason: 1}
    assert checked.rows["timestamp"].tolist() == [1.0, 2.0]


def test_without_times_a_second_interaction_is_a_duplicate() -> None:
    checked = check({}, {"t": 2}, table=InteractionsTable(user="u", item="i"))
    assert checked.rejects.first(1) == ["interactions.iloc:1: duplicate interaction: 'a', 'x'"]


def test_a_faulty_row_makes_no_duplicate_of_a_later_one() -> None:
    checked = check({"w": 0}, {})
    assert checked.rejects.counts() == {"w not a positive number": 1}
    assert len(checked.rows) == 1


def test_the_earliest_positive_is_kept_and_every_row_is_counted() -> None:
    checked = check(
        {"t": 9, "w": 9},
        {"t": 2, "r": 1},
        {"t": 4, "w": 4},
        {"t": 4, "i": "y"},
        {"t": 3, "i": "z"},
    )
    positives = take_positives(checked.rows)
    assert positives.rows["item_id"].tolist() == ["z", "x", "y"]
    assert positives.rows["timestamp"].tolist() == [3.0, 4.0, 4.0]
    assert positives.rows["weight"].tolist() == [1.0, 4.0, 1.0]
    assert list(positives.rows) == ["user_id", "item_id", "timestamp", "weight"]
    assert positives.counts == PositiveCounts(kept=3, not_positive=1, merged=1)


def test_pairs_seen_in_training_are_left_out() -> None:
    train = take_positives(check({}, {"i": "y", "r": 1}).rows)
    test = take_positives(check({}, {"i": "y"}, {"u": "b"}).rows, seen=train.rows)
    assert test.rows[["user_id", "item_id"]].to_numpy().tolist() == [["a", "y"], ["b", "x"]]
    assert test.counts.in_training == 1


@given(rows=PAIRS, seen=PAIRS)
def test_rows_in_are_rows_out_plus_rows_counted(
    rows: list[tuple[str, str, int, bool]], seen: list[tuple[str, str, int, bool]]
) -> None:
    columns = ["user_id", "item_id", "timestamp", "is_positive"]
    frame = pd.DataFrame(rows, columns=columns).astype({"is_positive": bool})
    other = pd.DataFrame(seen, columns=columns).drop_duplicates(["user_id", "item_id"])
    taken = take_positives(frame, seen=other)
    counted = taken.counts.not_positive + taken.counts.merged + taken.counts.in_training
    assert len(frame) == len(taken.rows) + counted
    earliest: dict[tuple[str, str], int] = {}
    for user, item, time, is_positive in rows:
        if is_positive and (user, item) not in {pair[:2] for pair in seen}:
            earliest[user, item] = min(time, earliest.get((user, item), time))
    kept = taken.rows.set_index(["user_id", "item_id"])["timestamp"].to_dict()
    assert kept == earliest
    assert taken.rows["timestamp"].is_monotonic_increasing
