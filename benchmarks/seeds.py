"""How much chance moves the figures: whole runs of one TOML file that differ in their seed.

Run: .venv/bin/python -m benchmarks.seeds benchmarks/gowalla.toml --seeds 0 1 2

The seed draws the split where that is at random, the initial vectors, the folds and the negatives.
Printed are the figures on the test of the version that each run leaves to be served, and their mean
and standard deviation.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipelines.config import load_config
from pipelines.progress import Reporter
from pipelines.results import Results, served_round
from pipelines.run import run

SEGMENTS = {"all": "all users", "warm_users": "warm users", "cold_users": "cold users"}
METRICS = ("recall@20", "ndcg@20")

Figures = Mapping[tuple[str, str], float]
"""By segment and metric."""


def figures_of(results: Results) -> Figures:
    """The figures of the version that a run left to be served, of the segments that have users."""
    segments = served_round(results)["evaluation"]["segments"]
    return {
        (segment, metric): segments[segment]["figures"][metric]
        for segment in SEGMENTS
        if segments.get(segment, {}).get("n_users")
        for metric in METRICS
    }


def table_of(seeds: Sequence[int], found: Sequence[Figures]) -> Table:
    """A row a seed, and one of the mean and the standard deviation."""
    names = list(found[0])
    table = Table("seed", *(f"{metric} {SEGMENTS[segment]}" for segment, metric in names))
    for seed, figures in zip(seeds, found, strict=True):
        table.add_row(str(seed), *(f"{figures[name]:.4f}" for name in names))
    if len(found) > 1:
        values = np.array([[figures[name] for name in names] for figures in found])
        spread = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        table.add_row("mean ± sd", *(f"{mean:.4f} ± {sd:.4f}" for mean, sd in spread))
    return table


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a run's TOML file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    console = Console(highlight=False)
    config = load_config(given.config)
    found = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            seeded = dataclasses.replace(config, seed=seed)
            results = run(seeded, Path(folder) / "models", reporter=Reporter(console))
        found.append(figures_of(results))
    console.print(table_of(given.seeds, found))


if __name__ == "__main__":
    main()
