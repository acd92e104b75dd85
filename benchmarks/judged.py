"""Measure what it is worth to leave out what users have judged: the product beside its peers.

Run: .venv/bin/python -m benchmarks.judged benchmarks/movielens-1m.toml --rows fm-recall

Every row is measured twice, by the published protocol (only the positives of training are left out)
and with all that a user has seen in training left out. EASE is the closed form of Steck 2019, with
a dense matrix of items by items. The other rows are those of `benchmarks.peers`, with their
settings and in their environments; one that has a result there is not trained again. `--models`
names what `fm-recall run` has published of the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import sparse

from benchmarks.peers.__main__ import BUILD
from benchmarks.peers.peer import peer_scorer
from benchmarks.peers.rerun import Bench, folder_of
from benchmarks.peers.rows import PEERS, PRODUCT
from benchmarks.peers.splits import DataSet
from pipelines.data.blocks import every_positive, left_out
from pipelines.evaluation.evaluate import Scorer, evaluate, popularity_scorer
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Reporter
from pipelines.training.embed import match_scorer
from serving.retrieval.retriever import Retriever
from towers.features.schema import SIDES

PENALTY = 1000.0
SEGMENTS = ("warm_users", "cold_users")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--models", type=Path, help="a models directory of the same file")
    parser.add_argument("--rows", nargs="+", choices=[*PEERS, PRODUCT], default=[])
    given = parser.parse_args()
    bench = Bench(build=BUILD, reporter=Reporter(Console(stderr=True)))
    data = DataSet(given.config.resolve())
    rows = {row: bench_scorer(row, data, bench) for row in given.rows}
    config, interactions, test = data.config, data.split.dataset.interactions, data.split.test
    train, users = every_positive(interactions), np.arange(interactions.shape[0])
    print("| scorer | left out | warm users recall@20 / NDCG@20 | cold users |\n|---|---|---|---|")
    found = _scorers(train, interactions.item_counts, given.models)
    for name, scorer in chain(found, rows.items()):
        for what in ("positives", "seen"):
            seen = left_out(interactions, users, what="seen" if what == "seen" else "positives")
            of = evaluate(
                scorer, train=train, left_out=LeftOut(seen), test=test, config=config.evaluation
            )
            figures = (
                f"{of.metric('recall@20', segment):.4f} / {of.metric('ndcg@20', segment):.4f}"
                for segment in SEGMENTS
            )
            print(f"| {name} | {what} | {' | '.join(figures)} |", flush=True)


def bench_scorer(row: str, data: DataSet, bench: Bench) -> Scorer:
    """The scorer of a row of `benchmarks.peers`, which is trained if it has no result."""
    product, folder = folder_of(bench.build, data, PRODUCT), folder_of(bench.build, data, row)
    is_there = (product / "models" if row == PRODUCT else folder / "users.npy").exists()
    if bench.current(data, row) is None or not is_there:
        bench.run(data, row)
    if row == PRODUCT:
        return version_scorer(Retriever.open(product / "models"))
    return peer_scorer(folder, data.split)[0]


def version_scorer(retriever: Retriever) -> Scorer:
    """Score by the vectors of a version, whose rows are those of its tables."""
    return match_scorer({side: retriever.catalogue(side).vectors for side in SIDES})


def _scorers(
    train: sparse.csr_array, item_counts: NDArray[np.int64], models: Path | None
) -> Iterator[tuple[str, Scorer]]:
    """Each scorer with its name."""
    yield "popularity", popularity_scorer(item_counts)
    yield "EASE", _ease(train)
    if models is not None:
        retriever = Retriever.open(models)
        yield f"version {retriever.version}", version_scorer(retriever)


def _ease(train: sparse.csr_array) -> Scorer:
    """Score by the weights B = I - P diag(P)^-1 with P = (X'X + penalty)^-1."""
    x = sparse.csr_array(train.astype(np.bool_).astype(np.float64))
    gram = (x.T @ x).toarray() + PENALTY * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return lambda rows: np.asarray(x[rows] @ weights, dtype=np.float32)


if __name__ == "__main__":
    main()
