"""Compare the members of the family on one data set: quality, width, index size and speed.

Run: .venv/bin/python -m benchmarks.family
Run: .venv/bin/python -m benchmarks.family --data citeulike-a --dims 16 --epochs 4

Each member is run by `fm-recall run`'s own job on a random split (or that of the file, with
`--split file`), with an exact index, published where validation finds it best: after some epoch, or
as it starts, which is the same for all members. Without `--refit`, the model that was validated is
the one that is tested. `ffm` and others in fewer dimensions have vectors as wide as `fm` in more:
compare rows of equal width too. The index is of u2i, in float32; its speed is that of exact search
in batches of 64. Expected in data/: ml-1m or citeulike-a.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks import citeulike
from pipelines.config import IndexConfig, RunConfig, SplitConfig, load_config
from pipelines.progress import Reporter
from pipelines.publishing.index_direction import queries_per_second
from pipelines.results import Results, served_round
from pipelines.run import run
from serving.retrieval.retriever import Retriever
from serving.search.graph_search import ExactSearch
from towers.features.kinds import Categorical, Features
from towers.features.schema import SIDES

HERE = Path(__file__).parent
DATA = ("movielens-1m", "citeulike-a")
MEMBERS = ("fm", "fwfm", "ffm", "fm3")
HEAD = (
    "| member | k | coordinates | epoch | validation | recall@20 / NDCG@20 | index MB | queries/s "
    "| s an epoch | s |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Run every member, and print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=DATA, default=DATA[0])
    parser.add_argument("--members", nargs="+", choices=MEMBERS, default=list(MEMBERS))
    parser.add_argument("--dims", type=int, nargs="+", default=[32])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["random", "file"], default="random")
    parser.add_argument("--refit", action="store_true")
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True, highlight=False))
    print(HEAD, flush=True)
    frames = citeulike.read_frames(citeulike.DATA) if given.data == "citeulike-a" else None
    for config in configs(load_config(HERE / f"{given.data}.toml"), given):
        with TemporaryDirectory() as models:
            results = run(config, models, frames=frames, reporter=reporter)
            retriever = Retriever.open(models)
            users, items = (retriever.catalogue(side).vectors for side in SIDES)
            speed = queries_per_second(ExactSearch(items), users, k=100)
        print(row_of(config, results, shape=items.shape, speed=speed), flush=True)


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


def row_of(config: RunConfig, results: Results, *, shape: tuple[int, ...], speed: float) -> str:
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
        shape[1],
        int(best["epoch"]),
        f"{best.get(metric, float('nan')):.4f}",
        f"{figures['recall@20']:.4f} / {figures['ndcg@20']:.4f}",
        f"{4 * shape[0] * shape[1] / 1e6:.1f}",
        f"{speed:,.0f}",
        f"{sum(trained) / max(len(trained), 1):.1f}",
        f"{total:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
