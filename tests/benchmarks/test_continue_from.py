from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmarks.continue_from import Case, measure, show
from pipelines.config import RunConfig
from tests.without_graphs import without_graphs
from towers.typed import parse

N_USERS, N_ITEMS, N_GROUPS, N_CLICKS = 400, 250, 10, 12_000

SETTINGS: dict[str, Any] = {
    "data": {
        "interactions": {"timestamp": "timestamp"},
        "users": {"id": "user_id"},
        "items": {"id": "item_id"},
    },
    "model": {"embedding_dim": 16, "start_power": 0.2},
    "training": {"rounds": 0, "negatives": {"mined_ranks": [20, 100]}},
    "evaluation": {"k": [20], "metric": "recall@20"},
    "index": {"kind": "exact"},
}


def world(seed: int) -> dict[str, pd.DataFrame]:
    """Clicks of users who like two groups of items; new users and items come all the time."""
    rng = np.random.default_rng(seed)
    likes = np.eye(N_GROUPS)[rng.integers(N_GROUPS, size=(N_USERS, 2))].sum(axis=1) * 20 + 1
    popularity = rng.gamma(1.0, size=N_ITEMS)
    chances = likes[:, np.arange(N_ITEMS) % N_GROUPS] * popularity
    clicks = []
    for now in np.sort(rng.random(N_CLICKS)):
        user = rng.integers(N_USERS * (0.6 + 0.4 * now))
        chance = chances[user, : int(N_ITEMS * (0.8 + 0.2 * now))]
        clicks.append((user, rng.choice(len(chance), p=chance / chance.sum()), now))
    return {
        "interactions": pd.DataFrame(clicks, columns=["user_id", "item_id", "timestamp"]),
        "users": pd.DataFrame({"user_id": np.arange(N_USERS)}),
        "items": pd.DataFrame({"item_id": np.arange(N_ITEMS)}),
    }


@pytest.mark.slow
def test_a_continuation_is_as_good_as_a_start_from_scratch(tmp_path: Path) -> None:
    with without_graphs():
        seeds = [
            measure(
                parse(RunConfig, SETTINGS | {"seed": seed}, where="synthetic"),
                world(seed),
                folder=tmp_path / str(seed),
            )
            for seed in range(2)
        ]
    _, continued, start = (
        np.mean([case.figures for case in cases], axis=0) for cases in zip(*seeds, strict=True)
    )
    assert np.all(continued > 0.98 * start)


def test_the_table_says_the_means_and_how_they_compare() -> None:
    console = Console(record=True, width=120)
    names = ("parent", "continued", "start")
    seeds = [
        [
            Case(name=name, figures=[x, x, x], seconds=10 * x)
            for name, x in zip(names, xs, strict=True)
        ]
        for xs in ((1.0, 3.0, 4.0), (3.0, 5.0, 6.0))
    ]
    show(seeds, console)
    rows = [line.split() for line in console.export_text().splitlines()]
    shown = {row[1]: row for row in rows if len(row) > 2 and row[2] == "│"}
    for name, mean in zip(names, (2, 4, 5), strict=True):
        assert shown[name][3:8:2] == [f"{mean:.4f}"] * 3
        assert shown[name][9] == str(10 * mean)
    assert "80.0%" in next(row for row in rows if "/" in row)
