"""Continue from an earlier version, beside training on everything from the start.

Run: .venv/bin/python -m benchmarks.continue_from [--seeds 0 1 2]

The parent is trained on the first two thirds of the training part's time line. Then the same tables
come whole, and `run` continues from the parent, and in another models directory trains from the
start; both publish, and are measured on the test part, which lies after both. Seconds are of whole
runs: reading, validation, fits, evaluation, export and the check of the index.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.final import final_parts, prepared_tables
from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import PARTS, every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared, prepare
from pipelines.evaluation.evaluate import evaluate
from pipelines.results import Results, served_round
from pipelines.run import Release, run
from pipelines.table_config import DataConfig, EntityTable, InteractionsTable
from pipelines.training.embed import embed, match_scorer
from pipelines.training.parent import read_parent
from serving.version.store import Store
from towers.errors import TrainingError

PARENT_SHARE = 2 / 3
"""Of the training part, by time."""
FIGURES = (("all", "recall@20"), ("all", "ndcg@20"), ("warm_users", "recall@20"))
"""Segments and metrics to print."""

Segments = Mapping[str, Any]
"""The segments of `Evaluation.to_dict()`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to a model: its figures on the test, and the seconds of the run."""

    name: str
    figures: Sequence[float]
    seconds: float

    @classmethod
    def of(cls, name: str, segments: Segments, *, seconds: float) -> Case:
        """Take the figures to print."""
        figures = [segments[segment]["figures"][metric] for segment, metric in FIGURES]
        return cls(name=name, figures=figures, seconds=seconds)


def measure(config: RunConfig, frames: Mapping[str, pd.DataFrame], *, folder: Path) -> list[Case]:
    """Train the parent, continue from it, and train from the start, with one seed."""
    prepared = prepare(config, folder / "prepared", frames=frames)
    training = prepared.frame("train", "validation")
    first = training.iloc[: round(len(training) * PARENT_SHARE)]
    untested = dataclasses.replace(config.split, test_fraction=0.0)
    before = dataclasses.replace(config, split=untested)
    parent, parent_s = _timed(before, folder / "models", frames={**frames, "interactions": first})
    version = parent["current_version"]
    if version is None:
        raise TrainingError("the parent's run left no version to be served")
    release = Release(promote="always")
    continued, continued_s = _timed(
        config, folder / "models", frames=frames, from_version=version, release=release
    )
    start, start_s = _timed(config, folder / "from-start", frames=frames)
    segments = _parent_today(config, prepared, store=Store(folder / "models"), version=version)
    return [
        Case.of("parent, with today's histories", segments, seconds=parent_s),
        Case.of("continued from the parent", _segments(continued), seconds=continued_s),
        Case.of("everything from the start", _segments(start), seconds=start_s),
    ]


def _timed(config: RunConfig, out: Path, **options: Any) -> tuple[Results, float]:
    """Run, and say how many seconds it took."""
    start = time.perf_counter()
    results = run(config, out, **options)
    return results, time.perf_counter() - start


def _segments(results: Results) -> Segments:
    """The figures of the version that a run left to be served."""
    segments: Segments = served_round(results)["evaluation"]["segments"]
    return segments


def _parent_today(config: RunConfig, prepared: Prepared, *, store: Store, version: int) -> Segments:
    """The figures of the parent's vectors for the users, histories and items of today."""
    parent = read_parent(store, version, config=config)
    _, test = final_parts(config, prepared)
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train", "validation"),
        earlier=parent.vocabulary,
    )
    segments: Segments = evaluate(
        match_scorer(embed(parent.model(dataset.vocabulary), dataset)),
        train=every_positive(dataset.interactions),
        test=test,
        config=config.evaluation,
    ).to_dict()["segments"]
    return segments


def clean_frames(config: RunConfig) -> tuple[RunConfig, dict[str, pd.DataFrame]]:
    """Read the tables once, and say how `run` reads them as frames."""
    schema = config.schema
    data = DataConfig(
        interactions=InteractionsTable(timestamp="timestamp", weight="weight"),
        users=EntityTable(id=schema.user_id),
        items=EntityTable(id=schema.item_id),
    )
    with prepared_tables(config) as prepared:
        frames = {
            "interactions": prepared.frame(*PARTS),
            "users": prepared.users,
            "items": prepared.items,
        }
    return dataclasses.replace(config, data=data), frames


def show(seeds: Sequence[Sequence[Case]], console: Console) -> None:
    """Print the mean of all seeds, and how each case compares with the last."""
    table = Table("", *(f"{metric} {segment}" for segment, metric in FIGURES), "seconds")
    means = []
    for cases in zip(*seeds, strict=True):
        columns = zip(*(case.figures for case in cases), strict=True)
        seconds = _mean([case.seconds for case in cases])
        means.append([*(_mean(column) for column in columns), seconds])
        shown = [f"{value:.4f}" for value in means[-1][:-1]]
        table.add_row(cases[0].name, *shown, f"{seconds:.0f}")
    ratios = [f"{one / other:.1%}" for one, other in zip(means[1], means[2], strict=True)]
    table.add_row("continued / everything", *ratios)
    console.print(table)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).with_name("movielens-1m.toml")
    parser.add_argument("--config", type=Path, default=default, help="needs timestamps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    console = Console(highlight=False)
    config, frames = clean_frames(load_config(given.config))
    seeds = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as folder:
            seeded = dataclasses.replace(config, seed=seed)
            seeds.append(measure(seeded, frames, folder=Path(folder)))
        show(seeds[-1:], console)
    show(seeds, console)


if __name__ == "__main__":
    main()
