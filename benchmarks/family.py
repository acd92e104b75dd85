"""Compare the members of the family on one data set: quality, width and speed.

Run: .venv/bin/python -m benchmarks.family
Run: .venv/bin/python -m benchmarks.family --config benchmarks/movielens-1m.toml --dims 32 128

Each member is run by `fm-recall run`'s own job on a random split (or the file's own, with
`--split file`), with an exact index, published where validation finds it best: after some epoch, or
as it starts, which is the same for all members. Without `--refit`, the model that was validated is
the one that is tested. `ffm` and others in fewer dimensions have vectors as wide as `fm` in more:
compare rows of equal width too.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from pipelines.config import IndexConfig, RunConfig, SplitConfig, load_config
from pipelines.progress import Reporter
from pipelines.results import Results, served_round
from pipelines.run import run
from serving.retrieval.retriever import Retriever
from towers.features.kinds import Categorical, Features

CONFIG = Path(__file__).with_name("movielens-1m.toml")
MEMBERS = ("fm", "fwfm", "ffm", "fm3")
HEAD = (
    "| member | k | coordinates | epoch | validation | recall@20 / NDCG@20 | s an epoch | s |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Run every member, and print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--members", nargs="+", choices=MEMBERS, default=list(MEMBERS))
    parser.add_argument("--dims", type=int, nargs="+", default=[32])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["random", "file"], default="random")
    parser.add_argument("--refit", action="store_true")
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True, highlight=False))
    print(HEAD, flush=True)
    for config in configs(load_config(given.config), given):
        with TemporaryDirectory() as models:
            results = run(config, models, reporter=reporter)
            width = Retriever.open(models).catalogue("item").vectors.shape[1]
        print(row_of(config, results, width=width), flush=True)


def configs(config: RunConfig, given: argparse.Namespace) -> Iterator[RunConfig]:
    """The runs that are asked for."""
    training = dataclasses.replace(
        config.training, rounds=0, epochs=given.epochs, refit_on_all=given.refit
    )
    config = dataclasses.replace(
        config, seed=given.seed, training=training, index=IndexConfig(kind="exact")
    )
    if given.split == "random":
        config = dataclasses.replace(config, split=SplitConfig(by="random"))
    config = dataclasses.replace(config, item=known_items(config.item))
    for dim in given.dims:
        for member in given.members:
            model = dataclasses.replace(config.model, interaction=member, embedding_dim=dim)
            yield dataclasses.replace(config, model=model)


def known_items(items: Features | None) -> Features | None:
    """The same features without rows for items that nobody has chosen: only `fm` can place them."""
    if items is None:
        return None
    return Features(
        features=tuple(
            dataclasses.replace(one, min_count=max(one.min_count, 1))
            if isinstance(one, Categorical)
            else one
            for one in items.features
        )
    )


def row_of(config: RunConfig, results: Results, *, width: int) -> str:
    """A line of the table."""
    found, metric = served_round(results), results["metric"]
    epochs = found["epochs"]
    best: dict[str, Any] = max(epochs, key=lambda record: record.get(metric, record["epoch"]))
    trained = [record["seconds"] for record in epochs if record["epoch"]]
    figures = found["evaluation"]["segments"]["all"]["figures"]
    total = sum(timing["seconds"] for timing in results["timings"])
    cells = (
        config.model.interaction,
        config.model.embedding_dim,
        width,
        int(best["epoch"]),
        f"{best.get(metric, float('nan')):.4f}",
        f"{figures['recall@20']:.4f} / {figures['ndcg@20']:.4f}",
        f"{sum(trained) / max(len(trained), 1):.1f}",
        f"{total:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
