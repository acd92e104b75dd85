"""Train on everything but the test, look at the test after each epoch, and time how it gets better.

Run: .venv/bin/python -m benchmarks.time_to_quality [--seeds 0 1 2] [--beside implicit-als]

This is the protocol of the published tables: the epoch is chosen on the test. The honest one, which
chooses on a validation part of train and looks at the test once, is `fm-recall run`. `--beside`
trains rows of `benchmarks.peers` on the same split first, and says when training passes them.
The powers of the start are chosen on the validation part, as `fm-recall run` does. Seconds are of
the choice, the start and training, without reading and without looking at the test.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.final import final_parts, prepared_tables
from benchmarks.peers.__main__ import BUILD
from benchmarks.peers.rerun import Bench
from benchmarks.peers.results import Result
from benchmarks.peers.rows import PEERS
from benchmarks.peers.splits import DataSet
from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.progress import Reporter
from pipelines.training.choose_start import choose_start, settled, with_powers
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, Record, fit
from pipelines.training.initialize import start_vectors

METRIC = "recall@20"
TARGETS = (0.164, 0.183, 0.192)
"""Recall@20 on Gowalla of implicit's ALS, and of LightGCN; and one beyond the published tables."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One seed's epochs."""

    choice_s: float
    """Seconds that choosing the powers of the start took."""
    epochs: Sequence[Record]
    """From epoch 0 on, which is the start."""
    best_epoch: int
    recall: float
    ndcg: float

    def seconds_to(self, target: float) -> float | None:
        """How long it took to pass a recall; None if it never did."""
        spent = self.choice_s
        for record in self.epochs:
            spent += record["seconds"]
            if record[METRIC] >= target:
                return spent
        return None


def measure(config: RunConfig, prepared: Prepared, *, reporter: Reporter) -> Curve:
    """Fit with one seed, and evaluate the best epoch in full."""
    start = time.perf_counter()
    config = with_start(config, prepared, reporter)
    choice_s = time.perf_counter() - start
    dataset, test = final_parts(config, prepared)
    patience = dataclasses.replace(config.training, patience=config.training.epochs + 1)
    metric = dataclasses.replace(config.evaluation, metric=METRIC)
    config = dataclasses.replace(config, training=patience, evaluation=metric)
    with tempfile.TemporaryDirectory() as folder:
        job = Fit(
            dataset=dataset,
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=test,
            directory=Path(folder, "fit"),
            logs=Path(folder, "logs"),
        )
        fitted = fit(job, reporter)
    best = evaluate(
        match_scorer(embed(fitted.model, dataset)),
        train=every_positive(dataset.interactions),
        test=test,
        config=config.evaluation,
    )
    return Curve(
        choice_s=choice_s,
        epochs=fitted.records,
        best_epoch=fitted.best_epoch,
        recall=best.metric(METRIC),
        ndcg=best.metric("ndcg@20"),
    )


def with_start(config: RunConfig, prepared: Prepared, reporter: Reporter) -> RunConfig:
    """The same settings with the powers of the start that the validation part prefers."""
    config = settled(config)
    data = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
        contexts=prepared.contexts,
    )
    powers = choose_start(
        config,
        data,
        spectral=start_vectors(data, config),
        validation=every_positive(prepared.interactions("validation")),
        reporter=reporter,
    )
    return with_powers(config, **powers)


def show(curves: Sequence[Curve], peers: Sequence[Result], console: Console) -> None:
    """Print the figures of all seeds, and when each target was passed."""
    reached = [(one, one.figure(METRIC, "all") or 0.0) for one in peers]
    for one, recall in reached:
        took = "" if one.cost is None else f" in {one.cost.training_s:.1f} s of training"
        console.print(f"{PEERS[one.row].title}: recall@20 {recall:.4f}{took}")
    for seed, curve in enumerate(curves):
        console.print(
            f"run {seed}: best epoch {curve.best_epoch}, recall@20 {curve.recall:.4f}, "
            f"NDCG@20 {curve.ndcg:.4f}; the start chosen in {curve.choice_s:.1f} s and made in "
            f"{curve.epochs[0]['seconds']:.1f} s: recall@20 {curve.epochs[0][METRIC]:.4f}"
        )
        for target in sorted({*TARGETS, *(round(recall, 4) for _, recall in reached)}):
            passed = curve.seconds_to(target)
            said = "not passed" if passed is None else f"{passed:.1f} s"
            console.print(f"  recall@20 {target}: {said}")
    if len(curves) > 1:
        for name in ("recall", "ndcg"):
            values = [getattr(curve, name) for curve in curves]
            mean = sum(values) / len(values)
            console.print(
                f"{name}@20 of {len(values)} seeds: mean {mean:.4f}, "
                f"{min(values):.4f} to {max(values):.4f}"
            )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("gowalla.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of those of the run file")
    parser.add_argument("--beside", nargs="+", choices=list(PEERS), default=[])
    given = parser.parse_args()
    console = Console(highlight=False)
    bench, data = Bench(build=BUILD, reporter=Reporter(console)), DataSet(given.config.resolve())
    peers = [bench.run(data, row) for row in given.beside]
    config = load_config(given.config)
    curves = []
    with prepared_tables(config) as prepared:
        for seed in given.seeds:
            seeded = dataclasses.replace(config, seed=seed)
            if given.epochs is not None:
                training = dataclasses.replace(config.training, epochs=given.epochs)
                seeded = dataclasses.replace(seeded, training=training)
            curves.append(measure(seeded, prepared, reporter=Reporter(console)))
    show(curves, peers, console)


if __name__ == "__main__":
    main()
