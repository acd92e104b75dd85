"""Exposures with clicks: what it is worth that an item was shown and not clicked.

Run: .venv/bin/python -m benchmarks.open_bandit --seeds 0 1 2 3 4

60,000 exposures of a fashion shop's items and their 287 clicks: the sample of the Open Bandit
Dataset in the package obp, whose wheel (1.3 MB) is downloaded once. It has no user ids: those who
have the same four features are one user here. A fifth of the clicked pairs of a user and an item is
wanted, drawn anew with each seed; the same settings train with and without explicit negatives.

Source: Y. Saito et al., Open Bandit Dataset and Pipeline, NeurIPS 2021, Datasets and Benchmarks.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.citeulike import Split, fit_and_measure
from benchmarks.peers.processes import ROOT
from benchmarks.wheels import Tables, fetch_tables
from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import assemble_dataset
from pipelines.data.prepare import prepare
from pipelines.evaluation.evaluate import popularity_scorer
from pipelines.progress import Reporter
from towers.typed import parse

FOLDER = ROOT / "build" / "data" / "open-bandit"
PACKAGE = "obp==0.4.1"
SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
USER_FEATURES = [f"user_feature_{number}" for number in range(4)]
METRICS = ("recall@10", "ndcg@10")
SHARES = {"without explicit negatives": 0.0, "with them (the default share, .1)": 0.1}

SETTINGS: dict[str, Any] = {
    "name": "open-bandit",
    "data": {
        "interactions": {"path": "events.parquet", "event": "event"},
        "users": {"path": "users.parquet", "id": "user_id"},
        "items": {"path": "items.parquet", "id": "item_id"},
        "behaviours": {"click": {"role": "target"}, "show": {"role": "negative", "seen": False}},
    },
    "user": {
        "features": [
            {"kind": "history"},
            *({"kind": "categorical", "column": column} for column in USER_FEATURES),
        ]
    },
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "numeric", "column": "item_feature_0"},
            *({"kind": "categorical", "column": f"item_feature_{n}"} for n in (1, 2, 3)),
        ]
    },
    "split": {"by": "random"},
    "model": {"embedding_dim": 32},
    "evaluation": {"k": [10, 20], "metric": "recall@20"},
}


def read_tables(archive: zipfile.ZipFile) -> Tables:
    """Read the exposures of all three campaigns under both policies, and what they say of users."""

    def read(name: str) -> pd.DataFrame:
        with archive.open(f"obp/dataset/obd/{name}.csv") as file:
            return pd.read_csv(io.BytesIO(file.read()), index_col=0)

    campaigns = ("all", "men", "women")
    shown = pd.concat(
        read(f"{policy}/{name}/{name}").assign(campaign=name)
        for policy in ("random", "bts")
        for name in campaigns
    )
    items = pd.concat(
        read(f"random/{name}/item_context").assign(campaign=name) for name in campaigns
    )
    for table in (shown, items):
        table["item_id"] = table["campaign"] + " " + table["item_id"].astype(str)
    shown["user_id"] = shown.groupby(USER_FEATURES).ngroup()
    shown["event"] = np.where(shown["click"] == 1, "click", "show")
    return {
        "events": shown[["user_id", "item_id", "event"]].drop_duplicates(),
        "users": shown[["user_id", *USER_FEATURES]].drop_duplicates(),
        "items": items.drop(columns="campaign"),
    }


def split_of(config: RunConfig, folder: Path) -> Split:
    """Divide the exposures as `fm-recall run` does."""
    frames = {
        "interactions": pd.read_parquet(folder / "events.parquet"),
        "users": pd.read_parquet(folder / "users.parquet"),
        "items": pd.read_parquet(folder / "items.parquet"),
    }
    with TemporaryDirectory() as prepared_in:
        prepared = prepare(config, Path(prepared_in, "prepared"), frames=frames)
        dataset = assemble_dataset(
            config.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=prepared.interactions("train"),
        )
        validation, test = (
            every_positive(prepared.interactions(part)) for part in ("validation", "test")
        )
    return Split(dataset, validation=validation, test=test)


def measure(config: RunConfig, folder: Path, reporter: Reporter) -> dict[str, list[float]]:
    """The figures of popularity, and of each share of the explicit negatives, with one seed."""
    split = split_of(config, folder)
    found = {
        "popularity": split.measure(
            popularity_scorer(split.dataset.interactions.item_counts), config
        )
    }
    for name, share in SHARES.items():
        negatives = dataclasses.replace(config.training.negatives, explicit_share=share)
        training = dataclasses.replace(config.training, negatives=negatives)
        one = dataclasses.replace(config, training=training)
        found[name] = fit_and_measure(split, one, reporter)
    return {
        name: [one["segments"]["all"]["figures"][metric] for metric in METRICS]
        for name, one in found.items()
    }


def main() -> None:
    """Fetch the tables, measure each seed, and print means and standard deviations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    console = Console(highlight=False)
    fetch_tables(PACKAGE, FOLDER, sha256=SHA256, read=read_tables)
    config = parse(RunConfig, SETTINGS, where="benchmarks/open_bandit.py")
    seeds = [
        measure(dataclasses.replace(config, seed=seed), FOLDER, Reporter(console))
        for seed in given.seeds
    ]
    table = Table("", *METRICS)
    for name in seeds[0]:
        values = np.array([found[name] for found in seeds])
        spread = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(len(METRICS))
        cells = zip(values.mean(axis=0), spread, strict=True)
        table.add_row(name, *(f"{mean:.4f} ± {sd:.4f}" for mean, sd in cells))
    console.print(table)


if __name__ == "__main__":
    main()
