"""Measure what it is worth to leave out what users have judged, by popularity, EASE and a version.

Run: .venv/bin/python -m benchmarks.judged benchmarks/movielens-1m.toml --models models

Every row is measured twice, by the published protocol (only the positives of training are left out)
and with all that a user has seen in training left out. EASE is the closed form of Steck 2019, with
a dense matrix of items by items. `--models` names what `fm-recall run` has published of the same
file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.final import read_final
from pipelines.config import load_config
from pipelines.data.blocks import every_positive, left_out
from pipelines.evaluation.evaluate import Scorer, evaluate, popularity_scorer
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
    given = parser.parse_args()
    config = load_config(given.config)
    dataset, test = read_final(config)
    interactions = dataset.interactions
    train, users = every_positive(interactions), np.arange(interactions.shape[0])
    print("| scorer | left out | warm users recall@20 / NDCG@20 | cold users |\n|---|---|---|---|")
    for name, scorer in _scorers(train, interactions.item_counts, given.models):
        for what in ("positives", "seen"):
            seen = left_out(interactions, users, what="seen" if what == "seen" else "positives")
            found = evaluate(scorer, train=train, seen=seen, test=test, config=config.evaluation)
            figures = (
                f"{found.metric('recall@20', segment):.4f} / {found.metric('ndcg@20', segment):.4f}"
                for segment in SEGMENTS
            )
            print(f"| {name} | {what} | {' | '.join(figures)} |", flush=True)


def _scorers(
    train: sparse.csr_array, item_counts: NDArray[np.int64], models: Path | None
) -> Iterator[tuple[str, Scorer]]:
    """Each scorer with its name."""
    yield "popularity", popularity_scorer(item_counts)
    yield "EASE", _ease(train)
    if models is not None:
        retriever = Retriever.open(models)
        vectors = {side: retriever.catalogue(side).vectors for side in SIDES}
        yield f"version {retriever.version}", match_scorer(vectors)


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
