"""Cold start on CiteULike-a: articles that nobody has in a library, found by their tags.

Run: .venv/bin/python -m benchmarks.citeulike --seeds 0 1 2

The published cold-start split: `warm_emb` trains; `warm_val` and `cold_item_val` decide when to
stop and the first-order weight of items without an id; `warm_test` and `cold_item_test` are wanted.
Beside the product stand popularity and TF-IDF of the tags. Expected in data/citeulike-a:
`item-tag.dat` and the CSV files of the split.

Source: the split of F. Huang et al., Aligning Distillation For Cold-Start Item Recommendation,
SIGIR 2023; the tags of H. Wang, B. Chen and W.-J. Li, IJCAI 2013.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import sparse

from benchmarks.interactions import build_dataset, interaction_matrix
from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.evaluation.content_baseline import content_scorer
from pipelines.evaluation.evaluate import Evaluation, Scorer, evaluate, popularity_scorer
from pipelines.progress import Reporter
from pipelines.training.calibrate import calibrate
from pipelines.training.choose_start import choose_start, settled, with_powers
from pipelines.training.embed import embed, match_scorer
from pipelines.training.fit import Fit, fit
from pipelines.training.initialize import start_vectors

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


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The published split: what trains, what is validated and what is tested."""

    dataset: Dataset
    validation: sparse.csr_array
    test: sparse.csr_array

    def measure(self, scorer: Scorer, config: RunConfig) -> Evaluation:
        """Evaluate on the test."""
        train = every_positive(self.dataset.interactions)
        return evaluate(scorer, train=train, test=self.test, config=config.evaluation)


def read_split(folder: Path, config: RunConfig) -> Split:
    """Read the tags, and the interactions of each part."""
    lines = [line.split()[1:] for line in (folder / "item-tag.dat").read_text().splitlines()]
    lines += [[]] * (N_ITEMS - len(lines))
    items = pd.DataFrame({"item_id": np.arange(N_ITEMS), "tags": lines})
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


def fit_and_measure(split: Split, config: RunConfig, reporter: Reporter) -> Evaluation:
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
        model = calibrate(fit(job, reporter), job, reporter).model
    return split.measure(match_scorer(embed(model, dataset)), config)


def table_of(found: Mapping[str, Evaluation]) -> Table:
    """Recall@20 / NDCG@20 by segment."""
    table = Table("", *SEGMENTS.values())
    for name, evaluation in found.items():
        pairs = (
            (evaluation.metric("recall@20", one), evaluation.metric("ndcg@20", one))
            for one in SEGMENTS
        )
        table.add_row(name, *(f"{recall:.4f} / {ndcg:.4f}" for recall, ndcg in pairs))
    return table


def main() -> None:
    """Measure the baselines and the product, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    console, config = Console(highlight=False), load_config(given.config)
    split = read_split(given.data, config)
    content, _ = split.dataset.content_bags("item")
    known = every_positive(split.dataset.interactions)
    scorers = {
        "popularity": popularity_scorer(split.dataset.interactions.item_counts),
        "TF-IDF of tags": content_scorer(content, known=known),
    }
    found = {name: split.measure(scorer, config) for name, scorer in scorers.items()}
    for seed in given.seeds:
        seeded = dataclasses.replace(config, seed=seed)
        found[f"fm-recall, seed {seed}"] = fit_and_measure(split, seeded, Reporter(console))
    console.print(table_of(found))


if __name__ == "__main__":
    main()
