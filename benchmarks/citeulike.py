"""Cold start on CiteULike-a: articles that nobody has in a library, found by their tags.

Run: .venv/bin/python -m benchmarks.citeulike --seeds 0 1 2
Run: .venv/bin/python -m benchmarks.citeulike --seeds 0 --peers lightfm-warp tfrs
Run: .venv/bin/python -m benchmarks.citeulike --split random --seeds 0 1 2

The published cold-start split: `warm_emb` trains; `warm_val` and `cold_item_val` decide when to
stop and the first-order weight of items without an id; `warm_test` and `cold_item_test` are wanted.
Beside the product stand popularity, TF-IDF of the tags and, if asked for, the rows of
`benchmarks.peers` with these features, in environments of their own. The random split is that of
`fm-recall run`: a fifth of each user's articles is wanted. Expected in data/citeulike-a:
`item-tag.dat`, and the CSV files of the split or, for the random one, `users.dat`.

Source: the split of F. Huang et al., Aligning Distillation For Cold-Start Item Recommendation,
SIGIR 2023; the tags of H. Wang, B. Chen and W.-J. Li, IJCAI 2013.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import sparse

from benchmarks.interactions import build_dataset, interaction_matrix
from benchmarks.peers import splits
from benchmarks.peers.__main__ import BUILD
from benchmarks.peers.rerun import Bench
from benchmarks.peers.rows import PEERS
from pipelines.config import IndexConfig, RunConfig, SplitConfig, load_config
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.evaluation.content_baseline import content_scorer
from pipelines.evaluation.evaluate import Scorer, evaluate, popularity_scorer
from pipelines.progress import Reporter
from pipelines.results import baselines, served_round
from pipelines.run import run
from pipelines.training.calibrate import calibrate
from pipelines.training.choose_start import choose_start, settled, with_powers
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, fit
from pipelines.training.initialize import start_vectors
from pipelines.training.mix_with_start import mix_with_start
from pipelines.training.place_features import measure_features, place_features

CONFIG = Path(__file__).with_name("citeulike-a.toml")
DATA = Path("data/citeulike-a")
N_USERS, N_ITEMS = 5551, 16980
SEGMENTS = {
    "cold_items_alone": "among cold",
    "cold_items": "cold, all ranked",
    "warm_items": "warm, all ranked",
    "all": "overall",
}
"""The segments of an evaluation, by what the field calls them."""

Figures = Mapping[str, Any]
"""An evaluation as plain values."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The published split: what trains, what is validated and what is tested."""

    dataset: Dataset
    validation: sparse.csr_array
    test: sparse.csr_array

    def measure(self, scorer: Scorer, config: RunConfig) -> Figures:
        """Evaluate on the test."""
        train = every_positive(self.dataset.interactions)
        return evaluate(scorer, train=train, test=self.test, config=config.evaluation).to_dict()


@dataclasses.dataclass(frozen=True)
class ForPeers(splits.DataSet):
    """The published split, as the rows of `benchmarks.peers` take it."""

    published: Split

    @cached_property
    def split(self) -> splits.Split:
        """What they train on and are measured on."""
        given = self.published
        return splits.Split(config=self.config, dataset=given.dataset, test=given.test)


def read_items(folder: Path) -> pd.DataFrame:
    """Read the tags of all articles."""
    lines = [line.split()[1:] for line in (folder / "item-tag.dat").read_text().splitlines()]
    lines += [[]] * (N_ITEMS - len(lines))
    return pd.DataFrame({"item_id": np.arange(N_ITEMS), "tags": lines})


def read_libraries(folder: Path) -> pd.DataFrame:
    """Read all users' articles: line i holds the number of user i's, and the articles."""
    lines = [line.split()[1:] for line in (folder / "users.dat").read_text().splitlines()]
    users = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    items = np.array([item for line in lines for item in line], dtype=np.int64)
    return pd.DataFrame({"user_id": users, "item_id": items})


def read_frames(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a run."""
    libraries = read_libraries(folder)
    users = libraries[["user_id"]].drop_duplicates()
    return {"interactions": libraries, "users": users, "items": read_items(folder)}


def read_split(folder: Path, config: RunConfig) -> Split:
    """Read the tags, and the interactions of each part."""
    items = read_items(folder)
    users = pd.DataFrame({"user_id": np.arange(N_USERS)})

    def read(*names: str) -> pd.DataFrame:
        found = pd.concat([pd.read_csv(folder / f"{name}.csv") for name in names])
        found = found.rename(columns={"user": "user_id", "item": "item_id"}).drop_duplicates()
        return found.assign(weight=1.0)

    def matrix(*names: str) -> sparse.csr_array:
        ids = {"user_ids": users["user_id"].to_numpy(), "item_ids": items["item_id"].to_numpy()}
        return interaction_matrix(read(*names), **ids)

    dataset = build_dataset(config.schema, users=users, items=items, interactions=read("warm_emb"))
    return Split(
        dataset,
        validation=matrix("warm_val", "cold_item_val"),
        test=matrix("warm_test", "cold_item_test"),
    )


def fit_and_measure(split: Split, config: RunConfig, reporter: Reporter) -> Figures:
    """Choose the start, train, calibrate and evaluate the product."""
    config = settled(config)
    dataset = split.dataset.with_schema(config.schema)
    spectral = start_vectors(dataset, config)
    found = choose_start(
        config, dataset, spectral=spectral, validation=split.validation, reporter=reporter
    )
    config = with_powers(config, **found)
    dataset = dataset.with_schema(config.schema)
    with TemporaryDirectory() as folder:
        job = Fit(
            dataset=dataset,
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=split.validation,
            directory=Path(folder, "fit"),
            logs=Path(folder, "logs"),
        )
        fitted = mix_with_start(fit(job, reporter), job, reporter)
        penalty = measure_features(fitted, job, reporter)
        fitted = place_features(fitted, job, reporter, penalty=penalty)
        model = calibrate(fitted, job, reporter).model
    return split.measure(match_scorer(embed(model, dataset)), config)


def run_random(folder: Path, config: RunConfig, reporter: Reporter) -> dict[str, Figures]:
    """Run the whole job on a random split, and give the figures of the baselines and its own."""
    frames = read_frames(folder)
    config = dataclasses.replace(
        config, split=SplitConfig(by="random"), index=IndexConfig(kind="exact")
    )
    with TemporaryDirectory() as models:
        results = run(config, models, frames=frames, reporter=reporter)
    return {**baselines(results), "fm-recall": served_round(results)["evaluation"]}


def table_of(found: Mapping[str, Figures]) -> Table:
    """Recall@20 / NDCG@20 by segment; empty where a segment has no users."""
    table = Table("", *SEGMENTS.values())
    for name, evaluation in found.items():
        segments = (evaluation["segments"][segment]["figures"] for segment in SEGMENTS)
        table.add_row(
            name,
            *(f"{one['recall@20']:.4f} / {one['ndcg@20']:.4f}" if one else "" for one in segments),
        )
    return table


def main() -> None:
    """Measure the baselines and the product, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--split", choices=["published", "random"], default="published")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=[])
    given = parser.parse_args()
    console, config = Console(highlight=False), load_config(given.config)
    measure = measure_random if given.split == "random" else measure_published
    console.print(table_of(measure(given, config, Reporter(console))))


def measure_random(
    given: argparse.Namespace, config: RunConfig, reporter: Reporter
) -> dict[str, Figures]:
    """The random split, drawn anew with each seed."""
    return {
        f"{name}, seed {seed}": figures
        for seed in given.seeds
        for name, figures in run_random(
            given.data, dataclasses.replace(config, seed=seed), reporter
        ).items()
    }


def measure_published(
    given: argparse.Namespace, config: RunConfig, reporter: Reporter
) -> dict[str, Figures]:
    """The published split."""
    split = read_split(given.data, config)
    content, _ = split.dataset.content_bags("item")
    known = every_positive(split.dataset.interactions)
    scorers = {
        "popularity": popularity_scorer(split.dataset.interactions.item_counts),
        "TF-IDF of tags": content_scorer(content, known=known),
    }
    found = {name: split.measure(scorer, config) for name, scorer in scorers.items()}
    bench, data = Bench(build=BUILD, reporter=reporter), ForPeers(given.config, split)
    for peer in given.peers:
        found[PEERS[peer].title] = bench.run(data, peer).evaluation
    for seed in given.seeds:
        seeded = dataclasses.replace(config, seed=seed)
        found[f"fm-recall, seed {seed}"] = fit_and_measure(split, seeded, reporter)
    return found


if __name__ == "__main__":
    main()
