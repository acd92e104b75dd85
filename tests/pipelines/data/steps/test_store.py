from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.split import Split
from pipelines.data.steps.files import known_file, settled_file, write_by_block, write_rows
from pipelines.data.steps.job import KNOWN
from pipelines.data.steps.store import Cuts, StoreBlock
from tests.examples import examples

TRAIN, VALIDATION, TEST = range(3)
BY_TIME = Split(by_time=True, test=0.0, validation=0.0)
SCHEMA = pa.schema(
    {
        "is_test": pa.bool_(),
        "user_row": pa.int32(),
        "item_row": pa.int32(),
        "timestamp": pa.float64(),
        "position": pa.int64(),
        "weight": pa.float32(),
        "draw": pa.uint64(),
        "behaviour": pa.int8(),
        "moment": pa.int32(),
        "is_target": pa.bool_(),
        "is_positive": pa.bool_(),
    }
)
Row = tuple[bool, int, int, float | None, int, float, int | None]
PLACES = st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 9))
FRACTIONS = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9])


def store(
    folder: Path, rows: list[Row], *, split: Split, cuts: Cuts | None = None, n_known: int = 0
) -> list[tuple[Any, ...]]:
    """Store a block of settled rows; user, item, weight and part of each, in their order.

    Rows of weight 0 are what is judged, and others positives.
    """
    found = [
        dict(zip(SCHEMA.names, (*row, 0, 0, row[5] > 0.0, row[5] > 0.0), strict=True))
        for row in rows
    ]
    write_rows(settled_file(folder, 7), pa.Table.from_pylist(found, schema=SCHEMA))
    (folder / "blocks").mkdir()
    step = StoreBlock(
        split=split,
        cuts=cuts or Cuts(),
        n_known=n_known,
        folder=folder,
        blocks=folder / "blocks",
    )
    assert step(7)["rows"] == len(rows)
    [path] = (folder / "blocks").iterdir()
    assert path.name == "block-00007.parquet"
    stored = pq.read_table(path).select(["user_row", "item_row", "weight", "part"]).to_pydict()
    return list(zip(*stored.values(), strict=True))


@settings(max_examples=examples(40))
@given(
    rows=st.lists(PLACES, unique=True),
    cuts=st.lists(st.one_of(PLACES, st.just((float("inf"), 0))), min_size=2, max_size=2),
)
def test_a_cut_is_by_time_and_then_by_position(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, int]],
    cuts: list[tuple[float, int]],
) -> None:
    cuts.sort()
    given_: list[Row] = [
        (False, 0, item, time, position, 1.0, None) for item, (time, position) in enumerate(rows)
    ]
    folder = tmp_path_factory.mktemp("store")
    found = {
        item: part for _, item, _, part in store(folder, given_, split=BY_TIME, cuts=Cuts(*cuts))
    }
    assert found == {item: sum(row >= cut for cut in cuts) for item, row in enumerate(rows)}


@pytest.mark.parametrize("n", [0, 3])
def test_a_block_is_written_by_user_from_old_to_new(tmp_path: Path, n: int) -> None:
    rows: list[Row] = [
        (False, 1, 5, 3.0, 8, 1.0, None),
        (False, 0, 5, 2.0, 3, 2.0, None),
        (False, 1, 70_000, 1.0, 4, 3.0, None),
    ]
    test: list[Row] = [(True, 1, 6, 0.5, 0, 4.0, None)]
    cuts = Cuts(validation=(3.0, 0))
    found = store(tmp_path, rows[:n] + test[:n], split=BY_TIME, cuts=cuts)
    expected = [(0, 5, 2.0, TRAIN), (1, 6, 4.0, TEST), (1, 70_000, 3.0, TRAIN)]
    expected += [(1, 5, 1.0, VALIDATION)]
    assert found == (expected if n else [])


@pytest.mark.parametrize("by_time", [True, False])
def test_what_is_judged_is_known_from_its_time_on(tmp_path: Path, by_time: bool) -> None:
    """At random, which has no times, from the start; and it moves the parts of no positive."""
    rows: list[Row] = [
        (False, 0, item, float(item), item, float(item % 2), 99 - item) for item in range(8)
    ]
    split = Split(by_time=by_time, test=0.5, validation=0.5)
    cuts = Cuts(validation=(2.0, 2), test=(6.0, 6))
    found = store(tmp_path, rows, split=split, cuts=cuts)
    judged = [part for _, _, weight, part in found if not weight]
    assert judged == ([TRAIN, VALIDATION, VALIDATION, TEST] if by_time else [TRAIN] * 4)
    chosen = [part for _, _, weight, part in found if weight]
    expected = [TRAIN, VALIDATION, VALIDATION, TEST] if by_time else [TRAIN, VALIDATION, TEST, TEST]
    assert chosen == expected


def test_what_moves_to_training_stands_where_its_time_is(tmp_path: Path) -> None:
    items = {10: 1.0, 11: 2.0, 12: 3.0, 13: 4.0}
    rows: list[Row] = [
        (False, 0, item, time, place, 1.0, None) for place, (item, time) in enumerate(items.items())
    ]
    rows += [(True, 0, 14, 2.5, 0, 1.0, None), (True, 0, 15, 2.7, 1, 1.0, None)]
    write_by_block(
        known_file(tmp_path, 0),
        {"user_row": np.array([0, 0, 1]), "item_row": np.array([12, 14, 13])},
        block=np.array([7, 7, 7], dtype=np.int32),
        n_blocks=8,
        schema=KNOWN,
    )
    cuts = Cuts(validation=(2.0, 0), test=(4.0, 0))
    found = store(tmp_path, rows, split=BY_TIME, cuts=cuts, n_known=1)
    assert [(item, part) for _, item, _, part in found] == [
        (10, TRAIN),
        (11, VALIDATION),
        (14, TRAIN),
        (15, TEST),
        (12, TRAIN),
        (13, TEST),
    ]


@settings(max_examples=examples(40))
@given(
    n_of_user=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    test=FRACTIONS,
    validation=FRACTIONS,
)
def test_at_random_the_least_draws_of_each_user_are_held_out(
    tmp_path_factory: pytest.TempPathFactory, n_of_user: list[int], test: float, validation: float
) -> None:
    rows: list[Row] = [
        (False, user, item, None, 100 * user + item, 1.0, 2**64 - 1 - item)
        for user, n in enumerate(n_of_user)
        for item in range(n)
    ]
    split = Split(by_time=False, test=test, validation=validation)
    found = store(tmp_path_factory.mktemp("store"), rows, split=split)
    for user, n in enumerate(n_of_user):
        n_test = min(round(n * test), n - 1)
        n_validation = min(round((n - n_test) * validation), n - n_test - 1)
        parts = {item: part for row, item, _, part in found if row == user}
        counts = Counter(parts.values())
        assert counts[TEST] == n_test
        assert counts[VALIDATION] == n_validation
        by_draw = [parts[item] for item in sorted(parts, reverse=True)]
        assert by_draw == sorted(by_draw, reverse=True)
