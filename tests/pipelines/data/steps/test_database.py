from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.steps.database import NOWHERE, find_places, first_seen
from tests.examples import examples

TIMES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 1e-320, 5e-324, -1.7e308, 1.7e308]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=examples(25))
@given(
    shards=st.lists(st.lists(TIMES, max_size=8), min_size=1, max_size=3),
    ranks=st.lists(st.integers(0, 12), max_size=3),
)
def test_the_place_of_a_rank_is_that_in_the_sorted_rows(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[float]], ranks: list[int]
) -> None:
    folder, places, paths = tmp_path_factory.mktemp("places"), [], []
    for number, times in enumerate(shards):
        rows = [(time, 100 * number + row, False) for row, time in enumerate(times)]
        frame = pd.DataFrame([*rows, (0.5, 7, True)], columns=["timestamp", "position", "is_test"])
        frame["is_positive"] = True
        judged = pd.DataFrame([(0.5, 8, False, False)], columns=frame.columns)
        frame = pd.concat([frame, judged], ignore_index=True)
        paths.append(folder / f"{number}.parquet")
        frame.astype({"timestamp": "float64", "position": "int64"}).to_parquet(paths[-1])
        places += [row[:2] for row in rows]
    found = find_places(paths, ranks=ranks, scratch=folder)
    expected = [sorted(places)[rank] if rank < len(places) else NOWHERE for rank in ranks]
    assert found == expected


def test_ids_come_in_order_of_first_occurrence_over_all_tables(tmp_path: Path) -> None:
    def write(name: str, ids: list[str], positions: list[int]) -> Path:
        path = tmp_path / f"{name}.parquet"
        pd.DataFrame({"user_id": ids, "position": positions}).to_parquet(path)
        return path

    tables = [
        [write("1", ["b", "a"], [7, 5]), write("2", ["a", "c", "b"], [1, 6, 9])],
        [write("3", ["d", "c", "e"], [2, 0, 1])],
    ]
    found = first_seen(tables, column="user_id", scratch=tmp_path)
    assert found.tolist() == ["a", "c", "b", "e", "d"]
    alone = first_seen(tables[:1], column="user_id", scratch=tmp_path)
    assert alone.tolist() == ["a", "c", "b"]
