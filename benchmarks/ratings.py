"""Predict ratings on MovieLens 100k: rankers by Gibbs sampling with myFM, and by gradients.

Run: .venv/bin/python -m benchmarks.ratings
Run: .venv/bin/python -m benchmarks.ratings --solvers mcmc-all --features ids all --folds 1 3

The folds are those that GroupLens publishes, u1 to u5: the k-th 20,000 ratings of its file are
wanted, all others train. `ids`: user and film; `implicit`: beside them the day, what the user has
rated and who has rated the film, whatever the rating; `all`: also age, gender, occupation, genres
and year. `mcmc` is the mean of some draws as one ranker, as with `[rank] solver = "mcmc"`;
`mcmc-all` that of all draws behind the first twentieth, which are myFM's own predictions; `sgd`
minimizes the squared error by epochs of lazy Adam, and a tenth of the training part says when to
stop. The data are fetched as those of the demo.

Source of the features: S. Rendle, L. Zhang, Y. Koren, On the difficulty of evaluating baselines,
arXiv:1905.01395. myFM's documentation has, with ten dimensions and all draws: fold 3, ids .8944,
with a prior for each field .8925; fold 1, implicit .889 without such priors. Its notebook has for
fold 3, eight dimensions: ids .8959, with the day, raters, age, gender, occupation and zip .8806.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console

from pipelines.cli.movielens import default_sources, download
from pipelines.progress import Reporter
from pipelines.rank_config import RankConfig
from pipelines.ranking.encode import encode_tables
from pipelines.ranking.examples import Examples, Reader, Tables
from pipelines.ranking.fit_ranker import Scorer
from pipelines.ranking.sample_ranker import n_kept, sample_ranker
from towers.features.kinds import Categorical, Features, MultiValued, Numeric
from towers.features.schema import Schema
from towers.features.vocabulary import fit_vocabulary
from towers.layers import FIRST_ORDER
from towers.optimizer import LazyAdam
from towers.ranking.pairs import pool
from towers.ranking.ranker import Ranker
from towers.ranking.settings import RankerSettings

FOLD = 20_000
"""Ratings in each of GroupLens' folds."""
CONFIG = RankConfig(
    solver="mcmc",
    model=RankerSettings(kind="fm", embedding_dim=10, within_fields=True, dropout=0.0),
    epochs=200,
    samples=20,
)
"""Ten dimensions, and 200 draws."""
RATE, L2, BATCH, PATIENCE, MOST = 2e-3, 2e-2, 1024, 3, 60
"""Of gradients: the learning rate, the weight of the squared length of an example's vectors, the
examples of a step, and the epochs without a better validation before it stops, of so many."""

FEATURES = ("ids", "implicit", "all")
HEAD = "| features | solver | RMSE by fold | mean | s a fold |\n|---|---|---|---|---|"


class Data(NamedTuple):
    """Tables with ids of text, in the order of the published files."""

    ratings: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    days: pd.DataFrame
    """The days on which something was rated; `ratings` has their places as `moment`."""


def fetch() -> Data:
    """Download the data."""
    with TemporaryDirectory() as folder:
        source, file = download(default_sources(), Path(folder), say=print_nothing)
        raw = source.parse(file)
    ratings = raw.interactions.assign(rating=raw.interactions["rating"].astype(np.float32))
    day = pd.to_datetime(ratings["timestamp"].astype(np.int64), unit="s").dt.strftime("%Y-%m-%d")
    moment, days = pd.factorize(day)
    year = raw.items["title"].str.extract(r"\(([0-9]{4})\)", expand=False).astype(float)
    return Data(
        ratings=ratings.assign(moment=moment),
        users=raw.users.assign(age=raw.users["age"].astype(float)),
        items=raw.items.assign(year=year),
        days=pd.DataFrame({"day": days}),
    )


def print_nothing(message: str) -> None:
    """Keep quiet about where the data come from."""
    del message


def read(train: pd.DataFrame, data: Data, *, features: str) -> Tables:
    """Encode users, films and days, with what the training ratings say of them."""
    users, items = data.users, data.items
    rated = train.groupby("user_id")["item_id"].agg(list)
    raters = train.groupby("item_id")["user_id"].agg(list)
    nothing: list[str] = []
    users = users.assign(rated=[rated.get(one, nothing) for one in users["user_id"]])
    items = items.assign(raters=[raters.get(one, nothing) for one in items["item_id"]])
    of_users: list[Categorical | MultiValued | Numeric] = [Categorical(column="user_id")]
    of_items: list[Categorical | MultiValued | Numeric] = [Categorical(column="item_id")]
    days = None
    if features != "ids":
        of_users += [MultiValued(column="rated")]
        of_items += [MultiValued(column="raters")]
        days = data.days
    if features == "all":
        of_users += [Numeric(column="age", buckets=10), Categorical(column="gender")]
        of_users += [Categorical(column="occupation")]
        of_items += [MultiValued(column="genres"), Numeric(column="year", buckets=10)]
    schema = Schema.of(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=tuple(of_users)),
        item=Features(features=tuple(of_items)),
        context=None if days is None else Features(features=(Categorical(column="day"),)),
    )
    vocabulary = fit_vocabulary(
        schema,
        users=users,
        items=items,
        user_counts=np.ones(len(users), np.int64),
        item_counts=np.ones(len(items), np.int64),
        contexts=days,
        context_counts=None if days is None else np.ones(len(days), np.int64),
    )
    return encode_tables(schema, vocabulary, users=users, items=items, contexts=days)


def examples_of(ratings: pd.DataFrame, data: Data, *, features: str) -> Examples:
    """Ratings as examples; labels are the stars."""
    n, users, items = len(ratings), data.users, data.items
    moments = np.zeros(n) if features == "ids" else ratings["moment"].to_numpy()
    return Examples(
        users=pd.Index(users["user_id"]).get_indexer(pd.Index(ratings["user_id"])),
        items=pd.Index(items["item_id"]).get_indexer(pd.Index(ratings["item_id"])),
        moments=moments.astype(np.int64),
        labels=ratings["rating"].to_numpy(),
        recall=np.full(n, np.nan, np.float32),
        weights=np.ones(n, np.float32),
    )


def rmse(labels: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The root mean square error."""
    return float(np.sqrt(np.mean(np.square(labels - found))))


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
    """A row for each solver and set of features, as soon as it is measured."""
    data = fetch()
    fold_of = np.arange(len(data.ratings)) // FOLD + 1
    for features in given.features:
        for solver in given.solvers:
            errors, start = [], time.perf_counter()
            for fold in given.folds:
                known, wanted = data.ratings[fold_of != fold], data.ratings[fold_of == fold]
                tables = read(known, data, features=features)
                train = examples_of(known, data, features=features)
                test = examples_of(wanted, data, features=features)
                errors.append(by(solver, tables, train, test, seed=given.seed, reporter=reporter))
            seconds = (time.perf_counter() - start) / len(errors)
            each = ", ".join(
                f"{fold}: {error:.4f}" for fold, error in zip(given.folds, errors, strict=True)
            )
            yield f"| {features} | {solver} | {each} | {np.mean(errors):.4f} | {seconds:.0f} |"


def by(
    solver: str, tables: Tables, train: Examples, test: Examples, *, seed: int, reporter: Reporter
) -> float:
    """The error of a solver on test."""
    if solver == "sgd":
        return by_gradients(tables, train, test, seed=seed)
    samples = CONFIG.samples if solver == "mcmc" else n_kept(CONFIG)
    return by_sampling(tables, train, test, seed=seed, samples=samples, reporter=reporter)


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    solvers = ["sgd", "mcmc", "mcmc-all"]
    parser.add_argument("--solvers", nargs="+", choices=solvers, default=solvers)
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=FEATURES)
    parser.add_argument("--folds", nargs="+", type=int, choices=range(1, 6), default=range(1, 6))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True, highlight=False))
    print(HEAD, flush=True)
    for row in rows(given, reporter):
        print(row, flush=True)


if __name__ == "__main__":
    main()
