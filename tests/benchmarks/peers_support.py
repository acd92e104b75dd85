"""A result as a row of the comparison leaves it."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.peers.results import Cost, Result


def result(**changes: Any) -> Result:
    segments = {
        name: {"n_users": 5, "figures": {"recall@20": 0.12345, "ndcg@20": 0.25}}
        for name in ("all", "warm_users", "cold_users", "cold_items")
    }
    given = Result(
        data="tiny",
        row="implicit-als",
        settings={"alpha": 1.0},
        evaluation={"segments": segments},
        ranks_cold_users=True,
        cost=Cost(training_s=1.26, run_s=2.0, cpu_s=3.0, peak_gib=0.126),
        versions={"implicit": "0.7.3"},
        machine="a machine",
    )
    return dataclasses.replace(given, **changes)
