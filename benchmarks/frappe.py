"""Rankers on Frappe: which app is used in which context, by the published files.

Run: .venv/bin/python -m benchmarks.frappe --models fm fwfm ffm afm deepfm --seeds 0
Run: .venv/bin/python -m benchmarks.frappe --models --peers deepctr-afm deepctr-deepfm myfm-fm

The published validation and test files have two sampled negatives a positive. The training file is
made likewise: the log without the rows of these two, and two apps a row that its user has not used
in its context. Expected in data/frappe: `Mobile_Frappe.zip`, `frappe.validation.libfm` and
`frappe.test.libfm`.

Source: X. He and T.-S. Chua, Neural Factorization Machines, SIGIR 2017, section 5.1; the log
is that of L. Baltrunas et al., arXiv:1505.03014.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.peers.environments import ensure_environment
from benchmarks.peers.processes import run_logged
from pipelines.progress import Reporter
from pipelines.rank_config import RankConfig
from pipelines.ranking.encode import encode_tables
from pipelines.ranking.examples import Examples, Tables
from pipelines.ranking.fit_ranker import fit_ranker
from pipelines.ranking.measure import measure_scores
from towers.features.kinds import Categorical, Features
from towers.features.schema import Schema
from towers.features.vocabulary import fit_vocabulary
from towers.ranking.interactions import INTERACTIONS
from towers.ranking.settings import Kind, RankerSettings

DATA = Path("data/frappe")
LOG = "Mobile_Frappe/frappe/frappe.csv"
CONTEXT = ["daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
NEGATIVES = 2
ENVIRONMENTS = Path("build/peers")
PEERS = ("deepctr-fm", "deepctr-fwfm", "deepctr-afm", "deepctr-deepfm", "myfm-fm")
"""Other libraries' models, with vectors of ten numbers and the same rows."""
Codes = NDArray[np.int64]

RECIPES: dict[Kind, RankConfig] = {
    kind: RankConfig(model=RankerSettings(kind=kind)) for kind in INTERACTIONS
}
"""The settings of each ranker: the defaults."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frappe:
    """The features, and the examples of each part."""

    tables: Tables
    train: Examples
    validation: Examples
    test: Examples
    moments: Codes
    """The codes of the context of each moment, [n_moments, 8]."""

    def codes(self, examples: Examples) -> Codes:
        """The rows of examples, each column by codes of its own, [n, 10]."""
        first = np.stack([examples.users, examples.items], axis=1)
        context = self.moments - self.moments.min(axis=0)
        return np.concatenate([first, context[examples.moments]], axis=1)


def read_libfm(path: Path) -> tuple[Codes, NDArray[np.float32]]:
    """Read a published file: the features of each row, [n, 10], and the labels."""
    lines = [line.split() for line in path.read_text().splitlines()]
    features = [[int(part.split(":")[0]) for part in line[1:]] for line in lines]
    return np.array(features), np.array([float(line[0]) > 0 for line in lines], np.float32)


def read_log(folder: Path) -> Codes:
    """Read the log by the numbers of the published files, [n, 10].

    These count the values of each column in the order in which the log has them first.
    """
    with zipfile.ZipFile(folder / "Mobile_Frappe.zip") as archive, archive.open(LOG) as file:
        log = pd.read_csv(file, sep="\t")
    columns, first = [], 0
    for name in ["user", "item", *CONTEXT]:
        codes, values = pd.factorize(log[name])
        columns.append(first + codes)
        first += len(values)
    return np.stack(columns, axis=1).astype(np.int64)


def draw_training(log: Codes, held_out: Codes, *, seed: int) -> tuple[Codes, NDArray[np.float32]]:
    """The log without the rows held out, and two sampled apps for each row."""
    left = Counter(map(tuple, held_out.tolist()))
    kept = []
    for number, row in enumerate(map(tuple, log.tolist())):
        if left[row]:
            left[row] -= 1
        else:
            kept.append(number)
    positives, used = log[kept], set(map(tuple, log.tolist()))
    random = np.random.default_rng(seed)
    first, last = log[:, 1].min(), log[:, 1].max()
    negatives = np.repeat(positives, NEGATIVES, axis=0)
    todo = np.arange(len(negatives))
    while len(todo):
        negatives[todo, 1] = random.integers(first, last + 1, size=len(todo))
        todo = todo[[tuple(row) in used for row in negatives[todo].tolist()]]
    labels = np.repeat(np.array([1.0, 0.0], np.float32), [len(positives), len(negatives)])
    return np.concatenate([positives, negatives]), labels


def read_frappe(folder: Path, *, seed: int) -> Frappe:
    """Read all, through the schema, the vocabulary and the encoder of the product."""
    log = read_log(folder)
    validation, validation_labels = read_libfm(folder / "frappe.validation.libfm")
    test, test_labels = read_libfm(folder / "frappe.test.libfm")
    held_out = np.concatenate([validation[validation_labels > 0], test[test_labels > 0]])
    train, train_labels = draw_training(log, held_out, seed=seed)
    frames = {
        name: pd.DataFrame({name: np.unique(log[:, at])})
        for at, name in enumerate(["user", "item"])
    }
    everything = np.concatenate([train, validation, test])
    moments, moment_of = np.unique(everything[:, 2:], axis=0, return_inverse=True)
    contexts = pd.DataFrame(moments, columns=CONTEXT)
    schema = Schema.of(
        user_id="user",
        item_id="item",
        user=Features(features=(Categorical(column="user"),)),
        item=None,
        context=Features(features=tuple(Categorical(column=name) for name in CONTEXT)),
    )
    vocabulary = fit_vocabulary(
        schema,
        users=frames["user"],
        items=frames["item"],
        user_counts=np.bincount(train[:, 0], minlength=len(frames["user"])),
        item_counts=np.bincount(train[:, 1] - log[:, 1].min(), minlength=len(frames["item"])),
        contexts=contexts,
        context_counts=np.bincount(moment_of[: len(train)], minlength=len(contexts)),
    )
    tables = encode_tables(
        schema, vocabulary, users=frames["user"], items=frames["item"], contexts=contexts
    )
    cuts = np.cumsum([0, len(train), len(validation), len(test)])
    parts = [
        _examples(everything[a:b], moment_of[a:b], labels, first_item=int(log[:, 1].min()))
        for a, b, labels in zip(
            cuts, cuts[1:], (train_labels, validation_labels, test_labels), strict=False
        )
    ]
    train_part, validation_part, test_part = parts
    return Frappe(tables, train_part, validation_part, test_part, moments)


def _examples(
    rows: Codes, moments: Codes, labels: NDArray[np.float32], *, first_item: int
) -> Examples:
    """Examples of rows of codes."""
    return Examples(
        users=rows[:, 0],
        items=rows[:, 1] - first_item,
        moments=moments.astype(np.int64),
        labels=labels,
        recall=np.full(len(rows), np.nan, np.float32),
        weights=np.ones(len(rows), np.float32),
    )


def run_ours(
    kind: Kind, data: Frappe, *, seed: int, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train a ranker of the product; its figures on the test."""
    fitted = fit_ranker(
        data.tables,
        data.train,
        data.validation,
        config=RECIPES[kind],
        seed=seed,
        folder=folder,
        reporter=reporter,
    )
    figures = measure_scores(data.test.labels, fitted.scores(data.test), data.test.users)
    return {**figures, "epochs": fitted.best_epoch}


def run_peer(
    name: str, data: Frappe, *, seed: int, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train a peer on the same rows, in an environment of its own."""
    library = name.partition("-")[0]
    python = ensure_environment(library, folder=ENVIRONMENTS / library, reporter=reporter)
    given, out = folder / "data.npz", folder / f"{name}.json"
    folder.mkdir(exist_ok=True)
    rows = {"train": data.train, "validation": data.validation, "test": data.test}
    codes = {part: data.codes(examples) for part, examples in rows.items()}
    labels = {f"{part}_labels": examples.labels for part, examples in rows.items()}
    arrays: dict[str, Any] = {**codes, **labels}
    np.savez(given, **arrays)
    command = [str(python), "-m", "benchmarks.frappe_peer", name, str(given), str(out), str(seed)]
    variables = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run_logged(command, log=folder / f"{name}.log", variables=variables)
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return figures


def main() -> None:
    """Train each ranker and each peer, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--models", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    console = Console(highlight=False)
    reporter = Reporter(console)
    table = Table("", "seed", "AUC", "log loss", "calibration", "epochs", "seconds", "peak GB")
    for seed in given.seeds:
        data = read_frappe(given.data, seed=seed)
        jobs = [(kind, partial(run_ours, kind)) for kind in given.models]
        jobs += [(peer, partial(run_peer, peer)) for peer in given.peers]
        for name, job in jobs:
            start = time.perf_counter()
            with reporter.stage(f"{name}, seed {seed}"), TemporaryDirectory() as folder:
                figures = job(data, seed=seed, folder=Path(folder, "fit"), reporter=reporter)
            table.add_row(name, str(seed), *_cells(figures, time.perf_counter() - start, name))
            console.print(f"{name}, seed {seed}: AUC {figures['auc']:.4f}")
    console.print(table)


def _cells(figures: Mapping[str, Any], seconds: float, name: str) -> list[str]:
    """A row of the table; memory is that of the largest process so far, ours or a peer's."""
    who = resource.RUSAGE_CHILDREN if name in PEERS else resource.RUSAGE_SELF
    calibrated = figures.get("calibration")
    return [
        f"{figures['auc']:.4f}",
        f"{figures['log_loss']:.4f}",
        "" if calibrated is None else f"{calibrated['error']:.4f}",
        str(figures.get("epochs", "")),
        f"{seconds:.0f}",
        f"{resource.getrusage(who).ru_maxrss / 2**20:.1f}",
    ]


if __name__ == "__main__":
    main()
