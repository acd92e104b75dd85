"""What one setting at a time is worth: fits that differ from a base in nothing else.

Run: .venv/bin/python -m benchmarks.settings
     .venv/bin/python -m benchmarks.settings --only training.margin training.folds --seeds 0 1

The base is that of benchmarks.ablation: Gowalla, 64 dimensions, three epochs on everything but the
test, which is looked at once at the end of each fit. Settings are compared, and none is chosen.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.ablation_fits import Bench
from benchmarks.ablation_variants import SETUPS, K
from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Reporter
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, fit

VARIED: Mapping[str, Sequence[Any]] = {
    "model.embedding_dim": (32, 128),
    "training.folds": (3, 10),
    "training.margin": (0.1, 0.9),
    "training.l2": (0.0005, 0.05),
    "training.learning_rate": (0.0007, 0.0028),
    "training.history_dropout": (0.0, 0.3),
    "training.user_weight_power": (0.0, 1.0),
}
"""The values that are tried in place of the base's, by setting."""


def with_setting(config: RunConfig, name: str, value: Any) -> RunConfig:
    """The same configuration with another value of one setting, by its dotted name."""
    table, key = name.split(".")
    changed = dataclasses.replace(getattr(config, table), **{key: value})
    return dataclasses.replace(config, **{table: changed})


def measure(bench: Bench, config: RunConfig) -> tuple[float, float, float]:
    """Fit once; recall and NDCG on the test, and the seconds of the fit."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        job = Fit(
            dataset=bench.dataset,
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=None,
            directory=Path(folder, "state"),
            logs=Path(folder, "logs"),
        )
        fitted = fit(job, Reporter())
    seconds = time.perf_counter() - start
    found = evaluate(
        match_scorer(embed(fitted.model, bench.dataset)),
        train=every_positive(bench.dataset.interactions),
        test=bench.test,
        config=config.evaluation,
    )
    return found.metric(f"recall@{K}"), found.metric(f"ndcg@{K}"), seconds


def rows(bench: Bench, *, only: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """The rows of a table in Markdown, each as soon as it is measured."""
    yield f"| | seed | recall@{K} | to the base | NDCG@{K} | to the base | seconds |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for seed in seeds:
        base = dataclasses.replace(bench.config, seed=seed)
        recall, ndcg, seconds = measure(bench, base)
        yield f"| base | {seed} | {recall:.4f} | | {ndcg:.4f} | | {seconds:.0f} |"
        for name in only:
            for value in VARIED[name]:
                found = measure(bench, with_setting(base, name, value))
                yield (
                    f"| `{name}` {value:g} | {seed} | {found[0]:.4f} | {found[0] - recall:+.4f} "
                    f"| {found[1]:.4f} | {found[1] - ndcg:+.4f} | {found[2]:.0f} |"
                )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=SETUPS, default="gowalla")
    parser.add_argument("--only", nargs="+", choices=VARIED, default=list(VARIED))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    config = SETUPS[given.data].load()
    config = dataclasses.replace(
        config,
        training=dataclasses.replace(
            config.training, negatives=dataclasses.replace(config.training.negatives, mined=0)
        ),
    )
    bench = Bench.read(given.data, config)
    for row in rows(bench, only=given.only, seeds=given.seeds):
        console.print(row)


if __name__ == "__main__":
    main()
