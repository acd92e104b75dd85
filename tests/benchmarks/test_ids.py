from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.ids import KINDS, WAYS, load, measure, write_ids


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_find_every_id_at_its_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ids.parquet"
    write_ids(path, kind, n=1000)
    rows = np.arange(1000)
    taken = []
    for way in WAYS:
        n, find, take = load(path, way)
        taken.append(take(rows).tolist())
        assert n == len(set(taken[-1])) == 1000
        assert find(take(rows)).tolist() == rows.tolist()
    assert taken[0] == taken[1]
    assert (taken[0] == sorted(taken[0])) == (kind == "ascending integers")


def test_both_ways_have_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ids.BATCHES", {1: 2, 10: 2})
    write_ids(tmp_path / "ids.parquet", "texts", n=100)
    figures = [measure(tmp_path / "ids.parquet", way) for way in WAYS]
    assert [*figures[0]] == [*figures[1]]
    assert all(figure["find 10, microseconds"] > 0 for figure in figures)
