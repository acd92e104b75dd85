"""A published version of a million items, made from nothing: only its size means something.

Vectors have the shape of a factorization machine's: items of a category lie together, an item's
own quality is on another scale than the rest, and a user's vector is the sum of its features and
of the items of its history.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.interactions import build_dataset
from pipelines.config import ExportConfig, IndexConfig, ModelConfig, RunConfig
from pipelines.data.dataset import Dataset
from pipelines.progress import Reporter
from pipelines.publishing.export import export_bundle
from pipelines.table_config import DataConfig, InteractionsTable
from pipelines.training.embed import embed
from pipelines.training.fit import Fitted
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from serving.search.scann_index import Storage
from serving.version.bundle import Bundle
from serving.version.manifest import Provenance
from serving.version.store import Store
from towers.features.kinds import Categorical, Features, History, Numeric
from towers.features.schema import Side

N_CATEGORIES, N_BRANDS, N_CITIES, N_AGES = 1000, 10_000, 500, 7
SEED = 0
HISTORY = 20
"""Items that each user has."""

SPREAD = 0.6
"""How far an item lies from the centre of its category, against how far that lies from zero."""

BLOCK = 200_000
"""Vectors that are made at a time."""


@dataclass(frozen=True)
class Size:
    """How large to make it."""

    items: int = 1_000_000
    users: int = 100_000
    dim: int = 64
    log_prices: float = 1.0
    """The standard deviation of the logarithm of prices; a price itself is a feature."""
    all_known: bool = False
    """Whether each item was somebody's, long ago; else those that nobody has share a vector."""


def publish_corpus(
    root: Path, size: Size, reporter: Reporter, *, storage: Storage = "float32"
) -> Bundle:
    """Publish a version of that size to the models directory `root`, and make it current."""
    corpus = _make(size, storage=storage)
    dataset, config = corpus.dataset, corpus.config
    store = Store(root)
    with store.staging() as staged:
        fitted = corpus.fitted(staged / "start")
        exported = export_bundle(
            fitted,
            dataset,
            vectors=embed(fitted.model, dataset),
            tables=corpus.tables,
            config=config,
            folder=staged,
            version=store.version_of(staged),
            reporter=reporter,
        )
        for path in staged.glob("start*"):
            path.unlink()
        bundle = store.publish(
            staged,
            Provenance(
                name=config.name,
                schema_fingerprint=config.schema.fingerprint(),
                config=json.loads(json.dumps(dataclasses.asdict(config))),
                parent_version=None,
                mined=None,
                index=exported.index.to_dict(),
                metrics={},
            ),
        )
    store.activate(bundle.version)
    return bundle


def corpus_vectors(size: Size) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vectors of its items, and of its users."""
    corpus = _make(size)
    with TemporaryDirectory() as folder:
        vectors = embed(corpus.fitted(Path(folder) / "start").model, corpus.dataset)
    return vectors["item"], vectors["user"]


@dataclass(frozen=True, eq=False)
class _Corpus:
    """The tables, and what a run makes of them."""

    tables: dict[Side, pd.DataFrame]
    config: RunConfig
    dataset: Dataset
    rng: np.random.Generator

    def fitted(self, checkpoint: Path) -> Fitted:
        """A model that nobody has trained."""
        return _untrained(
            self.dataset, self.tables["item"], self.config, checkpoint=checkpoint, rng=self.rng
        )


def _make(size: Size, *, storage: Storage = "float32") -> _Corpus:
    """Make the corpus."""
    rng = np.random.default_rng(SEED)
    tables, pairs = _tables(size, rng)
    config = RunConfig(
        name="corpus",
        data=DataConfig(interactions=InteractionsTable(path="interactions.parquet")),
        model=ModelConfig(embedding_dim=size.dim, init="normal"),
        export=ExportConfig(k=100),
        index=IndexConfig(storage=storage),
        user=Features(
            features=(
                History(latest=HISTORY),
                Categorical(column="age"),
                Categorical(column="city"),
            )
        ),
        item=Features(
            features=(
                Categorical(column="item_id"),
                Categorical(column="category"),
                Categorical(column="brand"),
                Numeric(column="price", scale="standard"),  # not bounded: a few long vectors
            )
        ),
    )
    dataset = build_dataset(
        config.schema,
        users=tables["user"],
        items=tables["item"],
        interactions=pairs,
    )
    return _Corpus(tables, config, dataset, rng)


def _tables(size: Size, rng: np.random.Generator) -> tuple[dict[Side, pd.DataFrame], pd.DataFrame]:
    """Make items, users, and a history for each user, out of three categories."""
    category = draw_categories(size.items, rng)
    items = pd.DataFrame(
        {
            "item_id": np.arange(size.items),
            "category": category,
            "brand": category * 10 + rng.integers(10, size=size.items),
            "price": rng.lognormal(sigma=size.log_prices, size=size.items).astype(np.float32),
        }
    )
    users = pd.DataFrame(
        {
            "user_id": np.arange(size.users),
            "age": rng.integers(N_AGES, size=size.users),
            "city": rng.integers(N_CITIES, size=size.users),
        }
    )
    item = draw_histories(category, size.users, rng)
    liking, item = np.repeat(np.arange(size.users), HISTORY), item.ravel()
    if size.all_known:
        every = np.arange(size.items)
        liking, item = np.append(every % size.users, liking), np.append(every, item)
    pairs = pd.DataFrame({"user_id": liking, "item_id": item, "weight": 1.0})
    return {"user": users, "item": items}, pairs.drop_duplicates(ignore_index=True)


def draw_categories(n_items: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the categories of items, ascending, a few of which have most of them; [n_items]."""
    return np.sort(rng.zipf(1.2, n_items) % N_CATEGORIES)


def draw_histories(
    category: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the items of `n` users, out of three categories each; [n, HISTORY]."""
    first = np.searchsorted(category, np.arange(N_CATEGORIES))
    count = np.diff(np.append(first, len(category)))
    liked = rng.choice(np.flatnonzero(count), (n, 3))
    chosen = np.take_along_axis(liked, rng.integers(3, size=(n, HISTORY)), axis=1)
    within = (rng.random(chosen.shape) * count[chosen]).astype(np.int64)
    items: NDArray[np.int64] = first[chosen] + within
    return items


def _untrained(
    dataset: Dataset,
    items: pd.DataFrame,
    config: RunConfig,
    *,
    checkpoint: Path,
    rng: np.random.Generator,
) -> Fitted:
    """A model whose items lie around the centres of their categories."""
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    model = build_model(config, batches)
    n_rows, dim = dataset.vocabulary.n_rows, config.model.embedding_dim
    centres = rng.normal(scale=1 / np.sqrt(dim), size=(N_CATEGORIES, dim)).astype(np.float32)
    category = np.full(n_rows, -1)
    known = dataset.history_rows >= 0
    category[dataset.history_rows[known]] = items["category"].to_numpy()[known]
    for start in range(0, n_rows, BLOCK):
        near = category[start : start + BLOCK, np.newaxis]
        v = rng.standard_normal((len(near), dim), dtype=np.float32) / np.float32(np.sqrt(dim))
        v = np.where(near < 0, v, centres[near[:, 0]] + np.float32(SPREAD) * v)
        model.features.v[start : start + len(v)].assign(v)
    model.features.w.assign(rng.normal(scale=0.3, size=n_rows).astype(np.float32))
    path = tf.train.Checkpoint(model=model).write(str(checkpoint))
    fitted = Fitted(model=model, best_epoch=0, records=(), checkpoint=path, mined=None)
    return fitted.without_optimizer()
