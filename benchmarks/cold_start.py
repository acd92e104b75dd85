"""Cold start on MovieLens 1M: what a few clicks of a new user are worth, and what new items cost.

Run: .venv/bin/python -m benchmarks.cold_start

Five hundred users are kept out of training altogether. Each is then served by features and by the
first n of its likes, and asked for the likes after the twentieth; beside them stand popularity and
a model that was made with those twenty. Then, on the run file's own split, items with fewer
than five training interactions are raised until they take so many of the twenty places.

Models are what a run publishes of these tables: the start, which no epoch betters. `--epochs`
trains it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy import sparse

from benchmarks.final import final_parts, prepared_tables
from benchmarks.interactions import build_dataset, interaction_matrix
from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import PARTS, HeldInteractions, every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import Scorer, evaluate, popularity_scorer
from pipelines.progress import Reporter
from pipelines.training.choose_start import powers_of, settled, with_powers
from pipelines.training.embed import Vectors, embed, match_scorer
from pipelines.training.fit import Fit, fit
from towers.two_tower import TwoTower

CONFIG = Path(__file__).with_name("movielens-1m.toml")
GIVEN = (0, 1, 2, 3, 5, 10, 20)
NEW_USERS, FEWEST_LIKES, FEW = 500, 25, 5
PLACES = (0.5, 1.0, 2.0, 4.0)
"""Of twenty, how many cold items are to take."""


def fit_model(dataset: Dataset, config: RunConfig) -> TwoTower:
    """Train for the epochs that are set."""
    with TemporaryDirectory() as folder:
        job = Fit(
            dataset=dataset,
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=None,
            directory=Path(folder, "fit"),
            logs=Path(folder, "logs"),
        )
        return fit(job, Reporter(Console(stderr=True))).model


def recall(
    scorer: Scorer, *, train: sparse.csr_array, test: sparse.csr_array, config: RunConfig
) -> dict[str, float]:
    """Recall@20 by segment."""
    found = evaluate(scorer, train=train, test=test, config=replace(config.evaluation, k=(20,)))
    return {
        name: segment.figures["recall@20"]
        for name, segment in found.segments.items()
        if segment.n_users
    }


def new_users(prepared: Prepared, config: RunConfig) -> None:
    """Print the curve of users that training has not seen."""
    likes = prepared.frame(*PARTS)
    place, count = (
        likes.groupby("user_id").cumcount(),
        likes.groupby("user_id")["item_id"].transform("size"),
    )
    able = likes.loc[count >= FEWEST_LIKES, "user_id"].unique()
    chosen = np.random.default_rng(config.seed).choice(able, NEW_USERS, replace=False)
    is_new, is_given = likes["user_id"].isin(chosen), place < GIVEN[-1]

    def build(rows: pd.Series[bool]) -> Dataset:
        return build_dataset(
            config.schema, users=prepared.users, items=prepared.items, interactions=likes[rows]
        )

    cold = build(~is_new)

    def matrix(rows: pd.Series[bool]) -> sparse.csr_array:
        return interaction_matrix(likes[rows], user_ids=cold.user_ids, item_ids=cold.item_ids)

    test, given = matrix(is_new & ~is_given), matrix(is_new & is_given)
    scorer = popularity_scorer(cold.interactions.item_counts)
    show("popularity", recall(scorer, train=given, test=test, config=config)["all"])
    model = fit_model(cold, config)
    for n in GIVEN:
        dataset = replace(cold, interactions=HeldInteractions(matrix(is_new & (place < n))))
        scorer = match_scorer(embed(model, dataset))
        show(f"{n} likes given", recall(scorer, train=given, test=test, config=config)["all"])
    warm = build(~is_new | is_given)
    scorer = match_scorer(embed(fit_model(warm, config), warm))
    show("with 20 in training", recall(scorer, train=given, test=test, config=config)["all"])


def new_items(prepared: Prepared, config: RunConfig) -> None:
    """Print what it costs the others to show items that training has hardly seen."""
    data, test = final_parts(config, prepared)
    vectors = embed(fit_model(data, config), data)
    is_cold = data.interactions.item_counts < FEW
    show_items("as they score", vectors, data, test, config)
    scores = vectors["user"] @ vectors["item"].T
    for places in PLACES:
        raised = raise_items(vectors, is_cold, scores, places=places)
        show_items(f"{places:g} of 20 places", raised, data, test, config)


def raise_items(
    vectors: Vectors, is_cold: NDArray[np.bool_], scores: NDArray[np.float32], *, places: float
) -> Vectors:
    """Add as much to the cold items' own scores as gives them so many of 20 places on average."""
    low, high = 0.0, float(scores.max() - scores.min())
    for _ in range(20):
        middle = (low + high) / 2
        kth = np.partition(scores + middle * is_cold, -20, axis=1)[:, -20:-19]
        taken = ((scores + middle >= kth) & is_cold).sum(axis=1).mean()
        low, high = (middle, high) if taken < places else (low, middle)
    item = vectors["item"].copy()
    item[is_cold, 0] += high
    return {"user": vectors["user"], "item": item}


def show_items(
    what: str, vectors: Vectors, data: Dataset, test: sparse.csr_array, config: RunConfig
) -> None:
    """Print the recall of the segments."""
    found = recall(
        match_scorer(vectors), train=every_positive(data.interactions), test=test, config=config
    )
    names = ("warm_users", "cold_users", "cold_items")
    figures = ", ".join(f"{name.replace('_', ' ')} {found[name]:.4f}" for name in names)
    print(f"{what:24} recall@20: {figures}", flush=True)


def show(what: str, figure: float) -> None:
    """Print a line of the curve."""
    print(f"{what:24} recall@20 {figure:.4f}", flush=True)


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--epochs", type=int, default=0)
    given = parser.parse_args()
    config = settled(load_config(given.config))
    config = with_powers(config, **powers_of(config))
    config = replace(config, training=replace(config.training, epochs=given.epochs))
    with prepared_tables(config) as prepared:
        new_users(prepared, config)
        new_items(prepared, config)


if __name__ == "__main__":
    main()
