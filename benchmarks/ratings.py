"""Predict ratings on MovieLens 100k: rankers by Gibbs sampling with myFM, and by gradients.

Run: .venv/bin/python -m benchmarks.ratings
Run: .venv/bin/python -m benchmarks.ratings --solvers mcmc --features all --folds 10

The ratings are divided at random into as many folds as asked for, and each fold of those that are
asked for is predicted from all others. `ids`: user and film; `all`: beside them, what the user has
rated and who has rated the film, whatever the rating, and age, gender, occupation, genres and year.
`mcmc` is the mean of some draws as one ranker, as with `[rank] solver = "mcmc"`; `mcmc-all` that of
all draws of the second half, which are myFM's own predictions; `sgd` minimizes the squared error by
epochs of lazy Adam, and a tenth of the training part says when to stop. The tables are the demo's,
fetched to build/ the first time.

Source of the features: S. Rendle, L. Zhang, Y. Koren, On the difficulty of evaluating baselines,
arXiv:1905.01395. Published for myFM, in its own split: .894 with ids, .886 with all.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console

from pipelines.cli.movielens import fetch_movielens_100k
from pipelines.progress import Reporter
from pipelines.rank_config import RankConfig
from pipelines.ranking.encode import encode_tables
from pipelines.ranking.examples import Examples, Reader, Tables
from pipelines.ranking.fit_ranker import Scorer
from pipelines.ranking.sample_ranker import sample_ranker
from towers.features.kinds import Categorical, Features, MultiValued, Numeric
from towers.features.schema import Schema
from towers.features.vocabulary import fit_vocabulary
from towers.layers import FIRST_ORDER
from towers.optimizer import LazyAdam
from towers.ranking.pairs import pool
from towers.ranking.ranker import Ranker
from towers.ranking.settings import RankerSettings

BUILD = Path("build")
CONFIG = RankConfig(
    solver="mcmc",
    model=RankerSettings(kind="fm", embedding_dim=10, within_fields=True, dropout=0.0),
    epochs=200,
    samples=20,
)
"""Ten dimensions, and 200 draws, of which the second half is used."""
RATE, L2, BATCH, PATIENCE, MOST = 2e-3, 2e-2, 1024, 3, 60
"""Of gradients: the learning rate, the weight of the squared length of an example's vectors, the
examples of a step, and the epochs without a better validation before it stops, of so many."""

HEAD = (
    "| features | solver | folds | measured | RMSE | spread | s a fold |\n"
    "|---|---|---|---|---|---|---|"
)


def read(train: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, *, features: str) -> Tables:
    """Encode users and films, with what the training ratings say of them."""
    rated = train.groupby("user_id")["item_id"].agg(lambda ids: [str(one) for one in ids])
    raters = train.groupby("item_id")["user_id"].agg(lambda ids: [str(one) for one in ids])
    nothing: list[str] = []
    users = users.assign(rated=[rated.get(one, nothing) for one in users["user_id"]])
    items = items.assign(raters=[raters.get(one, nothing) for one in items["item_id"]])
    of_users: list[Categorical | MultiValued | Numeric] = [Categorical(column="user_id")]
    of_items: list[Categorical | MultiValued | Numeric] = [Categorical(column="item_id")]
    if features == "all":
        of_users += [MultiValued(column="rated"), Numeric(column="age", buckets=6)]
        of_users += [Categorical(column="gender"), Categorical(column="occupation")]
        of_items += [MultiValued(column="raters"), MultiValued(column="genres")]
        of_items += [Numeric(column="year", buckets=10)]
    schema = Schema.of(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=tuple(of_users)),
        item=Features(features=tuple(of_items)),
    )
    vocabulary = fit_vocabulary(
        schema,
        users=users,
        items=items,
        user_counts=np.ones(len(users), np.int64),
        item_counts=np.ones(len(items), np.int64),
    )
    return encode_tables(schema, vocabulary, users=users, items=items)


def examples_of(ratings: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame) -> Examples:
    """Ratings as examples; labels are the stars."""
    n = len(ratings)
    return Examples(
        users=pd.Index(users["user_id"]).get_indexer(pd.Index(ratings["user_id"])),
        items=pd.Index(items["item_id"]).get_indexer(pd.Index(ratings["item_id"])),
        moments=np.zeros(n, np.int64),
        labels=ratings["rating"].to_numpy(np.float32),
        recall=np.full(n, np.nan, np.float32),
        weights=np.ones(n, np.float32),
    )


def rmse(labels: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The root mean square error; predictions stay within the scale."""
    return float(np.sqrt(np.mean(np.square(labels - np.clip(found, 1.0, 5.0)))))


def by_gradients(tables: Tables, train: Examples, test: Examples, *, seed: int) -> float:
    """Minimize the squared error with a tenth of the training part held out; the error on test."""
    drawn = np.random.default_rng(seed)
    order = drawn.permutation(len(train))
    cut = len(train) // 10
    validation, train = train.take(order[:cut]), train.take(order[cut:])
    reader, settings = Reader(tables), CONFIG.model
    ranker = Ranker(tables.n_rows, len(tables.fields.names), settings, seed=seed)
    scores, optimizer = Scorer(ranker, reader), LazyAdam(RATE, rates={FIRST_ORDER: 1.0})
    scores(validation.take(slice(0, 2)))
    ranker.bias.assign([float(train.labels.mean())])
    optimizer.build(ranker.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(users: tf.Tensor, items: tf.Tensor, moments: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            batch = reader.batch(users, items, moments, tf.zeros_like(labels))
            pooled = pool(ranker, batch, reader.fields)
            error = tf.reduce_mean(tf.square(ranker(pooled, training=True).logits - labels))
            squares = tf.reduce_sum(tf.square(pooled.vectors), axis=[1, 2])
            loss = error + L2 * tf.reduce_mean(squares)
        variables = ranker.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    best, at, found = np.inf, 0, np.nan
    for epoch in range(MOST):
        order = drawn.permutation(len(train))
        for start in range(0, len(order), BATCH):
            some = train.take(order[start : start + BATCH])
            step(some.users, some.items, some.moments, some.labels)
        error = rmse(validation.labels, scores(validation))
        if error < best:
            best, at, found = error, epoch, rmse(test.labels, scores(test))
        if epoch - at >= PATIENCE:
            break
    return found


def by_sampling(
    tables: Tables, train: Examples, test: Examples, *, seed: int, samples: int, reporter: Reporter
) -> float:
    """Sample a ranker; the error on test."""
    config = dataclasses.replace(CONFIG, samples=samples)
    with TemporaryDirectory() as folder:
        fitted = sample_ranker(
            tables,
            train,
            test,
            config=config,
            seed=seed,
            folder=Path(folder),
            is_rating=True,
            reporter=reporter,
        )
    return rmse(test.labels, fitted.scores(test))


def rows(given: argparse.Namespace, reporter: Reporter) -> Iterator[str]:
    """A row for each solver, set of features and fold, as soon as it is measured."""
    folder = fetch_movielens_100k(BUILD)
    ratings, users, items = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "users", "items")
    )
    fold_of = np.random.default_rng(given.seed).permutation(len(ratings)) % given.folds
    for features in given.features:
        for solver in given.solvers:
            errors, start = [], time.perf_counter()
            for fold in range(given.measured or given.folds):
                known = ratings[fold_of != fold]
                tables = read(known, users, items, features=features)
                train, test = (
                    examples_of(part, users, items) for part in (known, ratings[fold_of == fold])
                )
                if solver == "sgd":
                    errors.append(by_gradients(tables, train, test, seed=given.seed))
                else:
                    samples = CONFIG.samples if solver == "mcmc" else CONFIG.epochs // 2
                    errors.append(
                        by_sampling(
                            tables,
                            train,
                            test,
                            seed=given.seed,
                            samples=samples,
                            reporter=reporter,
                        )
                    )
            seconds = (time.perf_counter() - start) / len(errors)
            mean, spread = np.mean(errors), np.std(errors)
            yield (
                f"| {features} | {solver} | {given.folds} | {len(errors)} | {mean:.4f} "
                f"| {spread:.4f} | {seconds:.0f} |"
            )


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    solvers = ["sgd", "mcmc", "mcmc-all"]
    parser.add_argument("--solvers", nargs="+", choices=solvers, default=solvers)
    parser.add_argument("--features", nargs="+", choices=["ids", "all"], default=["ids", "all"])
    parser.add_argument("--folds", type=int, default=5, help="5: four fifths train, one is wanted")
    parser.add_argument("--measured", type=int, default=0, help="how many folds; default: all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True, highlight=False))
    print(HEAD, flush=True)
    for row in rows(given, reporter):
        print(row, flush=True)


if __name__ == "__main__":
    main()
