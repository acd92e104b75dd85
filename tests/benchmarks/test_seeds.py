from __future__ import annotations

from typing import Any

from rich.console import Console

from benchmarks.seeds import figures_of, table_of


def test_a_row_a_seed_and_their_mean_and_spread() -> None:
    found = [{("all", "recall@20"): 0.1}, {("all", "recall@20"): 0.3}]
    console = Console(record=True, width=120)
    console.print(table_of([4, 7], found))
    text = console.export_text()
    for part in ("recall@20 all users", "4 ", "0.1000", "7 ", "0.3000", "0.2000 ± 0.1414"):
        assert part in text
    console.print(table_of([4], found[:1]))
    assert "mean" not in console.export_text()


def test_figures_are_those_of_the_version_that_is_served() -> None:
    def segments(recall: float) -> dict[str, Any]:
        figures = {"recall@20": recall, "ndcg@20": recall / 2}
        return {
            "all": {"n_users": 5, "figures": figures},
            "warm_users": {"n_users": 5, "figures": figures},
            "cold_users": {"n_users": 0, "figures": {}},
        }

    rounds = [
        {"version": version, "evaluation": {"segments": segments(version / 10)}}
        for version in (1, 2)
    ]
    results: Any = {"current_version": 1, "rounds": rounds}
    assert figures_of(results) == {
        ("all", "recall@20"): 0.1,
        ("all", "ndcg@20"): 0.05,
        ("warm_users", "recall@20"): 0.1,
        ("warm_users", "ndcg@20"): 0.05,
    }
