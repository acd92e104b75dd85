"""Sample a ranker: Gibbs draws of a Bayesian factorization machine, and their mean as one machine.

The mean of the scores of S machines is the score of one: with the means of biases and first-order
weights, and each feature's S vectors one after another, times S^-1/2. So what is published is the
posterior mean itself, served and explained as any other ranker of kind `fm`.

Source: C. Freudenthaler, L. Schmidt-Thieme, S. Rendle, Bayesian Factorization Machines, NIPS
workshop 2011; the library is myFM.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.progress import Advance, Reporter, ignore
from pipelines.rank_config import RankConfig
from pipelines.ranking.examples import Examples, Reader, Tables
from pipelines.ranking.fit_ranker import SCORED_TOGETHER, FittedRanker, Scorer
from pipelines.ranking.measure import auc, log_loss
from towers.extras import import_extra
from towers.ranking.bags import FieldBags
from towers.ranking.pairs import pair_entries
from towers.ranking.ranker import Ranker

PROBIT = 1.702
"""The logistic function of so many times z is nearly the probit of z, within .01."""
CHECKPOINT = "sampled"


class Machine(NamedTuple):
    """A plain factorization machine over the columns of a design."""

    bias: float
    w: NDArray[np.float64]
    """[m]."""
    v: NDArray[np.float64]
    """[m, k]."""


def sample_ranker(
    tables: Tables,
    train: Examples,
    validation: Examples,
    *,
    config: RankConfig,
    seed: int,
    folder: Path,
    is_rating: bool = False,
    reporter: Reporter | None = None,
) -> FittedRanker:
    """Draw machines from the posterior of the training examples, and make a ranker of their mean.

    Features that no training example has add nothing. The mean is over draws behind the
    first twentieth of `config.epochs`. A ranker that is in `folder` already is taken from there.

    Args:
        tables: the features.
        train: the examples.
        validation: those that figures are measured on; nothing is decided by them.
        config: the settings.
        seed: of the draws.
        folder: keeps the checkpoint.
        is_rating: whether labels are numbers to be predicted as they are, and not choices; the
            logits are then predictions.
        reporter: shows how many draws are done.

    Raises:
        ConfigError: myFM is not installed.
    """
    reporter, start = reporter or Reporter(), time.perf_counter()
    reader, folder = Reader(tables), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.replace(
        config.model,
        embedding_dim=config.samples * config.model.embedding_dim,
        within_fields=True,
        dropout=0.0,
    )
    ranker = Ranker(tables.n_rows, len(tables.fields.names), settings, seed=seed)
    scores = Scorer(ranker, reader)
    checkpoint, path = tf.train.Checkpoint(ranker=ranker), folder / CHECKPOINT
    scores(train.take(slice(0, 2)))
    if path.with_suffix(".index").exists():
        checkpoint.read(str(path)).assert_consumed()
    else:
        with reporter.bar("draw machines", config.epochs, unit="draws") as advance:
            machine = sample_machine(
                design(tables, train),
                train.labels,
                config=config,
                seed=seed,
                is_rating=is_rating,
                advance=advance,
            )
        assign(ranker, machine, scale=1.0 if is_rating else PROBIT)
        checkpoint.write(str(path))
    record = {"epoch": 1.0, "seconds": time.perf_counter() - start}
    figures = _figures(validation.labels, scores(validation), is_rating=is_rating)
    reporter.say(
        f"  the mean of {config.samples} machines: validation "
        + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    )
    return FittedRanker(
        ranker=ranker, scores=scores, records=[record | figures], best_epoch=1, checkpoint=path
    )


class Design(NamedTuple):
    """The features of n examples, those of a query and of an item once."""

    queries: sparse.csr_array
    """Of each query, [n_queries, n_rows]."""
    items: sparse.csr_array
    """Of each item, [n_items, n_rows]."""
    pairs: sparse.csr_array
    """Of each example, crosses and the score of recall, [n, n_rows]."""
    query_of: NDArray[np.int64]
    """The query of each example, [n]."""
    item_of: NDArray[np.int64]
    """The item of each, [n]."""
    fields: NDArray[np.int64]
    """The field of each column, [n_rows]; 0 where no example has it."""

    @property
    def is_apart(self) -> bool:
        """Whether no column is of queries and of items, as the ids of past items are."""
        return not np.intersect1d(self.queries.indices, self.items.indices).size

    def flat(self) -> sparse.csr_array:
        """All features of each example, [n, n_rows]."""
        found = self.queries[self.query_of] + self.items[self.item_of] + self.pairs
        return sparse.csr_array(found)


def design(tables: Tables, examples: Examples) -> Design:
    """Write examples as matrices.

    Two combinations of a cross that have one row by their hash are one value here; the ranker has
    their pair beside it.
    """
    fields, n_moments = np.zeros(tables.n_rows, dtype=np.int64), tables.moments.n
    keys = examples.users * n_moments + examples.moments
    queries, query_of = np.unique(keys, return_inverse=True)
    items, item_of = np.unique(examples.items, return_inverse=True)
    first_item = len(tables.fields.query)

    def matrix(bags: FieldBags, *, first: int) -> sparse.csr_array:
        fields[bags.rows] = first + bags.fields
        shape = (bags.n, tables.n_rows)
        return sparse.csr_array((bags.x.astype(np.float64), bags.rows, bags.starts), shape=shape)

    known, now = matrix(tables.users, first=0), matrix(tables.moments, first=0)
    pairs = _pairs(tables, examples, fields)
    return Design(
        queries=sparse.csr_array(known[queries // n_moments] + now[queries % n_moments]),
        items=matrix(tables.items, first=first_item)[items],
        pairs=pairs,
        query_of=query_of,
        item_of=item_of,
        fields=fields,
    )


def _pairs(tables: Tables, examples: Examples, fields: NDArray[np.int64]) -> sparse.csr_array:
    """The features of pairs; writes their fields."""
    shape, first = (len(examples), tables.n_rows), len(tables.fields.query + tables.fields.item)
    if not tables.fields.n_pair:
        return sparse.csr_array(shape)
    reader, parts = Reader(tables), []
    for start in range(0, len(examples), SCORED_TOGETHER):
        part = examples.take(slice(start, start + SCORED_TOGETHER))
        columns = (part.users, part.items, part.moments, part.recall)
        batch = reader.batch(*(tf.constant(one) for one in columns))
        entries = pair_entries(batch, tables.fields)
        owners, numbers, rows, x = (np.asarray(one) for one in entries)
        fields[rows] = first + numbers
        found = (x.astype(np.float64), (owners, rows))
        parts.append(sparse.csr_array(found, shape=(len(part), shape[1])))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def sample_machine(
    x: Design,
    labels: NDArray[Any],
    *,
    config: RankConfig,
    seed: int,
    is_rating: bool,
    advance: Advance = ignore,
) -> Machine:
    """Draw machines for n examples by Gibbs sampling; the mean of some as one machine.

    Each field has a prior of its own, which is learned too. Columns that no example has are 0.
    Where no column is of both queries and items, a draw takes the features of a query and of an
    item once, however many examples they have.

    Source: S. Rendle, Scaling Factorization Machines to Relational Data, VLDB 2013.

    Raises:
        ConfigError: myFM is not installed.
    """
    myfm = import_extra("myfm", extra="mcmc", task='rank.solver = "mcmc"')
    model = (myfm.MyFMRegressor if is_rating else myfm.MyFMClassifier)(
        rank=config.model.embedding_dim, random_seed=seed
    )
    parts = [x.pairs, x.queries, x.items] if x.is_apart else [x.flat()]
    used = [np.unique(part.indices) for part in parts]
    whole, *once = [sparse.csr_matrix(part[:, own]) for part, own in zip(parts, used, strict=True)]
    places = [x.query_of, x.item_of]
    columns = np.concatenate(used)
    model.fit(
        whole if whole.shape[1] else None,
        labels.astype(np.float64) if is_rating else labels > 0,
        X_rel=[myfm.RelationBlock(at, part) for at, part in zip(places, once, strict=False)],
        n_iter=config.epochs,
        n_kept_samples=n_kept(config),
        grouping=np.unique(x.fields[columns], return_inverse=True)[1].tolist(),
        callback=_telling(advance),
    )
    drawn = model.predictor_.samples
    chosen = np.linspace(0, len(drawn) - 1, min(config.samples, len(drawn))).round().astype(int)
    found = mean_of([Machine(one.w0, one.w, one.V) for one in (drawn[place] for place in chosen)])
    w, v = np.zeros(len(x.fields)), np.zeros((len(x.fields), found.v.shape[1]))
    w[columns], v[columns] = found.w, found.v
    return Machine(found.bias, w, v)


def n_kept(config: RankConfig) -> int:
    """How many draws there are behind the first twentieth."""
    return config.epochs - config.epochs // 20


def mean_of(machines: list[Machine]) -> Machine:
    """The machine whose score is the mean of the scores of S, with S times as long vectors."""
    return Machine(
        float(np.mean([one.bias for one in machines])),
        np.mean([one.w for one in machines], axis=0),
        np.concatenate([one.v for one in machines], axis=1) / np.sqrt(len(machines)),
    )


def assign(ranker: Ranker, machine: Machine, *, scale: float) -> None:
    """Give a ranker of kind `fm` with `within_fields` the scores of a machine, times a scale."""
    ranker.bias.assign([scale * machine.bias])
    ranker.features.w.assign(scale * machine.w)
    v, width = np.sqrt(scale) * machine.v, ranker.features.v.shape[1]
    ranker.features.v.assign(np.pad(v, [(0, 0), (0, width - v.shape[1])]))


def _telling(advance: Advance) -> Callable[..., tuple[bool, str | None]]:
    """A callback of myFM that counts draws, and never ends them."""

    def tell(*given: Any) -> tuple[bool, str | None]:
        del given
        advance(1)
        return False, None

    return tell


def _figures(
    labels: NDArray[np.float32], logits: NDArray[np.float32], *, is_rating: bool
) -> dict[str, float]:
    """What is said of a ranker on validation."""
    if is_rating:
        return {"rmse": float(np.sqrt(np.mean(np.square(labels - logits))))}
    return {"auc": auc(labels, logits), "log_loss": log_loss(labels, logits)}
