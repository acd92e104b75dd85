"""Compare the solvers: the spectral start and least squares, each untrained and trained on.

Run: .venv/bin/python -m benchmarks.solvers
Run: .venv/bin/python -m benchmarks.solvers --data movielens-1m citeulike-a --dims 64

Each row is fitted on the training part, with the powers of its start and its epochs chosen on the
validation part, and measured on the test. MovieLens 100k is the demo's, fetched to build/ the first
time; MovieLens 1M and CiteULike-a, in the published cold-start split, are expected in data/.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks import citeulike
from benchmarks.citeulike import Split, fit_and_measure
from benchmarks.final import prepared_tables
from pipelines.cli import demo
from pipelines.cli.movielens import fetch_movielens_100k
from pipelines.config import RunConfig, load_config, parse_config, read_toml
from pipelines.data.blocks import every_positive, sample_users
from pipelines.data.dataset import assemble_dataset
from pipelines.progress import Reporter
from pipelines.training.choose_start import settled

HERE, BUILD = Path(__file__).parent, Path("build")
DATA = ("movielens-100k", "movielens-1m", "citeulike-a")
HEAD = (
    "| data | k | solver | epochs at most | recall@20 / NDCG@20 | warm items | cold alone | s |\n"
    "|---|---|---|---|---|---|---|---|"
)


def read(name: str) -> tuple[RunConfig, Split]:
    """The settings and the parts of a data set."""
    if name == "citeulike-a":
        config = load_config(citeulike.CONFIG)
        return config, citeulike.read_split(citeulike.DATA, config)
    if name == "movielens-100k":
        fetch_movielens_100k(BUILD)
        path = Path(demo.__file__).with_name("demo.toml")
        config = parse_config(read_toml(path), folder=BUILD, where=str(path))
    else:
        config = load_config(HERE / f"{name}.toml")
    config = settled(config)
    with prepared_tables(config) as prepared:
        dataset = assemble_dataset(
            config.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=prepared.interactions("train"),
        )
        limit = config.evaluation.validation_users
        validation = sample_users(
            prepared.interactions("validation"), limit=limit, seed=config.seed
        )
        return config, Split(dataset, validation, every_positive(prepared.interactions("test")))


def rows(name: str, given: argparse.Namespace, reporter: Reporter) -> Iterator[str]:
    """The rows of a data set, each as soon as it is measured."""
    config, split = read(name)
    for dim in given.dims:
        for epochs in given.epochs:
            for solver in ("sgd", "als"):
                reporter.say(f"{name}, k = {dim}, {solver}, at most {epochs} epochs")
                training = dataclasses.replace(config.training, solver=solver, epochs=epochs)
                model = dataclasses.replace(config.model, embedding_dim=dim)
                one = dataclasses.replace(config, training=training, model=model, seed=given.seed)
                start = time.perf_counter()
                found = fit_and_measure(split, one, reporter)["segments"]
                seconds = time.perf_counter() - start
                cells = (found[key]["figures"] for key in ("all", "warm_items", "cold_items_alone"))
                texts = (
                    f"{one['recall@20']:.4f} / {one['ndcg@20']:.4f}" if one else "" for one in cells
                )
                first = f"| {name} | {dim} | {solver} | {epochs} |"
                yield f"{first} {' | '.join(texts)} | {seconds:.0f} |"


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA[:1])
    parser.add_argument("--dims", type=int, nargs="+", default=[64])
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True, highlight=False))
    print(HEAD, flush=True)
    for name in given.data:
        for row in rows(name, given, reporter):
            print(row, flush=True)


if __name__ == "__main__":
    main()
