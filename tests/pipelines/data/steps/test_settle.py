from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.steps.check import Keys, write_ids
from pipelines.data.steps.files import (
    ROW,
    checked_file,
    read_faults,
    settled_file,
    write_by_block,
)
from pipelines.data.steps.settle import SettleBlock
from tests.examples import examples

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_row": ROW,
        "position": pa.int64(),
        "timestamp": pa.float64(),
        "weight": pa.float32(),
        "behaviour": pa.int8(),
        "is_target": pa.bool_(),
        "draw": pa.uint64(),
    }
)
USERS = ["c", "a", "b"]
Row = tuple[str, int, float, bool | str]
"""A user, an item, a time, and whether it is a target, or that of another name; its place is its
position."""
KINDS = ["", True, False, "buy"]
"""What the codes stand for: of a target that is called otherwise, "buy", and others."""


def write(folder: Path, table: str, rows: list[Row], *, cut: int, blocks: list[int]) -> None:
    """Good rows in two chunks; with their blocks by user."""
    for chunk, (start, stop) in enumerate([(0, cut), (cut, max(len(rows), cut))]):
        part = rows[start:stop]
        user, item, time, is_positive = zip(*part, strict=True) if part else ((), (), (), ())
        columns = {
            "user_id": np.array(user, dtype=object),
            "item_row": np.array(item, dtype=np.int32),
            "position": np.arange(start, start + len(part)),
            "timestamp": np.array(time, dtype=np.float64),
            "weight": np.ones(len(part), dtype=np.float32),
            "behaviour": np.array([KINDS.index(kind) for kind in is_positive], dtype=np.int8),
            "is_target": np.array(is_positive, dtype=bool),
        }
        block = np.array([blocks[USERS.index(name)] for name in user], dtype=np.int32)
        path = checked_file(folder, table, chunk)
        write_by_block(path, columns, block=block, n_blocks=2, schema=SCHEMA)


def settle(
    folder: Path, tables: dict[str, list[Row]], *, cut: int = 2, has_events: bool = False
) -> list[dict[str, Any]]:
    """Settle two blocks; what each says."""
    for name, rows in tables.items():
        write(folder, name, rows, cut=cut, blocks=[0, 1, 1])
    write_ids(folder / "items.parquet", pd.Series(range(9)))
    write_ids(folder / "users.parquet", pd.Series(USERS))
    step = SettleBlock(
        chunks=dict.fromkeys(tables, 2),
        repeated=dict.fromkeys(tables, 4),
        has_events=has_events,
        moments=None,
        n_context=0,
        keys=Keys(
            id_kinds={"user": "text", "item": "integer"},
            known_ids={"item": folder / "items.parquet"},
        ),
        ids={"user": folder / "users.parquet"},
        folder=folder,
    )
    return [step(number) for number in range(2)]


def kept(
    folder: Path, *, is_test: bool = False, positive: bool = True
) -> set[tuple[str, int, int]]:
    """The user, the item and the position of each row that is left."""
    return {
        (USERS[row["user_row"]], row["item_row"], row["position"])
        for number in range(2)
        for row in pq.read_table(settled_file(folder, number)).to_pylist()
        if row["is_test"] == is_test and row["is_positive"] == positive
    }


def test_rows_of_a_user_are_settled_over_all_chunks(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("a", 1, 5.0, True),
        ("b", 1, 5.0, False),
        ("a", 2, 3.0, True),
        ("a", 1, 5.0, True),
        ("c", 1, 1.0, True),
        ("a", 1, 4.0, True),
        ("b", 1, 6.0, True),
    ]
    first, second = settle(tmp_path, {"interactions": rows}, cut=3)
    assert first == {"rows": 1, "counts": {"interactions": {"kept": 1}}, "extremes": [0, 0, 1, 1]}
    assert second["rows"] == 6
    counts = {"kept": 3, "not_positive": 1, "merged": 1, "repeated": 1}
    assert second["counts"] == {"interactions": counts}
    assert second["extremes"] == [1, 2, 1, 2]
    assert kept(tmp_path) == {("a", 2, 2), ("c", 1, 4), ("a", 1, 5), ("b", 1, 6)}
    assert kept(tmp_path, positive=False) == {("b", 1, 1)}
    positions, codes = read_faults(tmp_path, "interactions")
    assert (positions.tolist(), codes.tolist()) == ([3], [4])


def test_the_first_of_each_behaviour_is_stored_and_the_first_target_is_the_positive(
    tmp_path: Path,
) -> None:
    rows: list[Row] = [
        ("a", 1, 1.0, False),
        ("a", 1, 1.0, True),  # at the same time, but no repetition
        ("a", 1, 2.0, False),
        ("a", 1, 3.0, "buy"),
        ("a", 1, 3.0, "buy"),
        ("a", 1, 4.0, True),
    ]
    _, found = settle(tmp_path, {"interactions": rows}, has_events=True)
    counts = {"kept": 1, "not_positive": 2, "merged": 2, "repeated": 1}
    assert found["counts"] == {"interactions": counts}
    assert kept(tmp_path) == {("a", 1, 1)}
    assert kept(tmp_path, positive=False) == {("a", 1, 0), ("a", 1, 3)}


def test_test_rows_that_are_in_training_are_left_out(tmp_path: Path) -> None:
    interactions: list[Row] = [("a", 1, 5.0, True), ("b", 2, 5.0, True), ("a", 3, 5.0, False)]
    test: list[Row] = [("a", 1, 9.0, True), ("b", 1, 9.0, True), ("a", 3, 8.0, True)]
    _, found = settle(tmp_path, {"interactions": interactions, "test": test})
    assert found["counts"]["test"] == {"kept": 2, "in_training": 1}
    assert kept(tmp_path, is_test=True) == {("b", 1, 1), ("a", 3, 2)}


def test_a_block_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    for found in settle(tmp_path, {"interactions": []}):
        assert found == {"rows": 0, "counts": {"interactions": {}}, "extremes": None}
    assert kept(tmp_path) == set()


ROWS = st.lists(
    st.tuples(
        st.sampled_from(USERS), st.integers(0, 2), st.sampled_from([0.0, 1.0, 2.0]), st.booleans()
    ),
    max_size=16,
)


@settings(max_examples=examples(40))
@given(interactions=ROWS, test=ROWS, cut=st.integers(0, 9))
def test_every_row_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory,
    interactions: list[Row],
    test: list[Row],
    cut: int,
) -> None:
    folder = tmp_path_factory.mktemp("settle")
    outcomes = settle(folder, {"interactions": interactions, "test": test}, cut=cut)
    train, train_counts = expected(interactions, set())
    pairs = {row[:2] for row in train}
    held, test_counts = expected(test, pairs)
    assert kept(folder) == train
    assert kept(folder, positive=False) == judged(interactions)
    assert kept(folder, is_test=True, positive=False) == set()
    assert kept(folder, is_test=True) == held
    for name, counts in (("interactions", train_counts), ("test", test_counts)):
        found = [outcome["counts"][name] for outcome in outcomes]
        fates = {fate for counted in found for fate in counted}
        assert {fate: sum(c.get(fate, 0) for c in found) for fate in fates} == counts


def judged(rows: list[Row]) -> set[tuple[str, int, int]]:
    """The first row of each user and item that is no positive and repeats no other."""
    seen: set[tuple[str, int, float]] = set()
    found: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for position, (user, item, time, is_positive) in enumerate(rows):
        if not is_positive and (user, item, time) not in seen:
            found.setdefault((user, item), []).append((time, position))
        seen.add((user, item, time))
    return {(*pair, min(places)[1]) for pair, places in found.items()}


def expected(
    rows: list[Row], training: set[tuple[str, int]]
) -> tuple[set[tuple[str, int, int]], dict[str, int]]:
    """What is left of a table, and how many rows have which fate, one row after another."""
    fates: dict[str, int] = {}
    seen: set[tuple[str, int, float]] = set()
    positives: dict[tuple[str, int], list[tuple[float, int]]] = {}

    def count(fate: str) -> None:
        fates[fate] = fates.get(fate, 0) + 1

    for position, (user, item, time, is_positive) in enumerate(rows):
        if (user, item, time) in seen:
            count("repeated")
        elif is_positive:
            positives.setdefault((user, item), []).append((time, position))
        else:
            count("not_positive")
        seen.add((user, item, time))
    left = set()
    for (user, item), found in positives.items():
        for _ in found[1:]:
            count("merged")
        if (user, item) in training:
            count("in_training")
        else:
            count("kept")
            left.add((user, item, min(found)[1]))
    return left, fates
