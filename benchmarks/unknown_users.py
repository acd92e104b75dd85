"""What users get of whom nothing is known: no id, no feature, no history.

Run: .venv/bin/python -m benchmarks.unknown_users benchmarks/movielens-1m.toml

The test's cold users, and then all, are asked for as if nothing were known of them, of the version
that a run of the file leaves to be served; `--models` names one that is there already. Beside it
stand popularity, what the items' own scores give, which is the answer without a default user, and
the version with all that is known of these users. The last row is a bound, and not a recommender:
the popularity of items among the cold users in the test itself, which nobody can know before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import sparse

from benchmarks.final import read_final
from benchmarks.judged import version_scorer
from pipelines.config import load_config
from pipelines.data.blocks import every_positive, left_out
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import Scorer, evaluate, popularity_scorer
from pipelines.evaluation.left_out import LeftOut
from pipelines.progress import Reporter
from pipelines.run import run
from serving.retrieval.retriever import Retriever

SEGMENTS = {"cold_users": "cold users", "all": "all users"}
METRICS = ("recall@20", "ndcg@20")


def same_for_all(scores: NDArray[np.float32]) -> Scorer:
    """Score every item alike for every user."""
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))


def chosen_by_newcomers(test: sparse.csr_array, dataset: Dataset) -> NDArray[np.int64]:
    """How many of the test's users without a training interaction chose each item, [n_items]."""
    newcomers = np.flatnonzero(dataset.interactions.user_counts == 0)
    return np.bincount(test[newcomers].indices, minlength=test.shape[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a run's TOML file")
    parser.add_argument("--models", type=Path, help="a models directory of the same file")
    given = parser.parse_args()
    config = load_config(given.config)
    with TemporaryDirectory() as folder:
        models = given.models
        if models is None:
            models = Path(folder, "models")
            run(config, models, reporter=Reporter(Console(stderr=True)))
        retriever = Retriever.open(models)
        tower, items = retriever.tower("user"), retriever.catalogue("item").vectors
        (unknown,) = tower(tower.pack({}, size=1))
        dataset, test = read_final(config)
        counts, users = dataset.interactions.item_counts, np.arange(test.shape[0])
        rows: dict[str, Scorer] = {
            "popularity": popularity_scorer(counts),
            "the items' own scores": same_for_all(items[:, 0]),
            "nothing is known": same_for_all(items @ unknown),
            "all is known": version_scorer(retriever),
            "popularity in the test": popularity_scorer(chosen_by_newcomers(test, dataset)),
        }
        print(f"| | {' | '.join(SEGMENTS.values())} |\n|---|{'---|' * len(SEGMENTS)}")
        for name, scorer in rows.items():
            found = evaluate(
                scorer,
                train=every_positive(dataset.interactions),
                left_out=LeftOut(
                    left_out(dataset.interactions, users, what=config.evaluation.leave_out)
                ),
                test=test,
                config=config.evaluation,
            )
            figures = (
                " / ".join(f"{found.metric(metric, segment):.4f}" for metric in METRICS)
                for segment in SEGMENTS
            )
            print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
