"""The vectors to search: trained ones, a heavy-tailed corpus, and clumps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.data import prepare_gowalla
from benchmarks.scale.__main__ import CONFIG as SCALE
from benchmarks.scale.draw import draw_slices
from benchmarks.scale.generate import generate
from benchmarks.scale.population import Size, make_counts, make_items, make_users
from benchmarks.serving.corpus import Size as CorpusSize
from benchmarks.serving.corpus import corpus_vectors
from pipelines.config import EvaluationConfig, IndexConfig, RunConfig, load_config
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.training.choose_start import with_powers
from serving.version.embeddings import Embeddings
from serving.version.store import Store
from towers.start import spectral_vectors

GOWALLA = Path(__file__).parents[1] / "gowalla.toml"
DIM, N_QUERIES = 64, 2000
MOST_INTERACTIONS = 2_000_000
"""Of a million items, two each: an epoch takes minutes."""

START_POWER, POPULARITY_POWER = 0.2, 0.4
"""How much longer the vector of a popular item is, and how much less it weighs in a history."""

Made = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Vectors of items, and of users that ask."""


def make_vectors(kind: str, folder: Path, *, items: int, clumped: Path, reporter: Reporter) -> Made:
    """Make vectors of a kind, or take what an earlier call has kept in `folder`."""
    kept = folder / f"{kind}-{items}.npz"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        makers: dict[str, Callable[[], Made]] = {
            "gowalla": lambda: _gowalla(folder / "gowalla", reporter),
            "generated": lambda: _generated(folder / f"generated-{items}", items, reporter),
            "spectral": lambda: untrained_vectors(
                Size(interactions=10 * items, users=max(1000, items // 2), items=items, seed=0)
            ),
            "heavy": lambda: corpus_vectors(CorpusSize(items=items, users=items // 10)),
            "clumped": lambda: _clumped(clumped),
        }
        vectors, queries = makers[kind]()
        chosen = np.random.default_rng(0).permutation(len(queries))[:N_QUERIES]
        np.savez(kept, vectors=vectors, queries=queries[chosen])
    with np.load(kept) as held:
        return held["vectors"], held["queries"][:N_QUERIES]


def _gowalla(folder: Path, reporter: Reporter) -> Made:
    """Train on Gowalla for two epochs; 40,981 items."""
    tables = prepare_gowalla(Path("data/gowalla"), Path("build/data/gowalla"))
    config = load_config(GOWALLA)
    training = dataclasses.replace(config.training, epochs=2)
    reporter.say(f"Training on {tables}")
    return _trained(dataclasses.replace(config, training=training), folder, reporter)


def _generated(folder: Path, items: int, reporter: Reporter) -> Made:
    """Train an epoch on generated interactions, ten for each item, or `MOST_INTERACTIONS`."""
    interactions = min(10 * items, MOST_INTERACTIONS)
    size = Size(interactions=interactions, users=max(1000, items // 2), items=items, seed=0)
    generate(size, folder / "data")
    (folder / "data" / "run.toml").write_bytes(SCALE.read_bytes())
    config = load_config(folder / "data" / "run.toml")
    # given, since choosing the powers of the start takes longer than the epoch
    given = with_powers(config, start_power=START_POWER, popularity_power=POPULARITY_POWER)
    return _trained(given, folder / "models", reporter)


def _trained(config: RunConfig, models: Path, reporter: Reporter) -> Made:
    """Train, and read the vectors of users and items."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, embedding_dim=DIM),
        index=IndexConfig(kind="exact"),
        evaluation=EvaluationConfig(test_users=1000, validation_users=1000),
    )
    if Store(models).current() is None:
        run(config, models, reporter=reporter)
    bundle = Store(models).open()
    users, items = (Embeddings.read(path).vectors for path in (bundle.users, bundle.items))
    return items, users


def _clumped(path: Path) -> Made:
    """The vectors of a book shop's long tail."""
    with np.load(path) as held:
        return held["items"].astype(np.float32), held["queries"].astype(np.float32)


def untrained_vectors(size: Size, *, dim: int = DIM) -> Made:
    """Vectors like trained ones, in seconds: where training on generated interactions starts.

    An item's vector is its place among the items of the same users, longer where it is popular; a
    user's is the sum of those of its items.
    """
    items = make_items(size)
    users = make_users(size, items)
    drawn = list(draw_slices(size, users, items, make_counts(size, users)))
    at = tuple(
        np.concatenate([getattr(each, name) for each in drawn]) for name in ("users", "places")
    )
    ones = np.ones(len(at[0]), dtype=np.float32)
    shape = size.users, size.items
    pairs: sparse.csr_array = sparse.csr_array(sparse.coo_array((ones, at), shape=shape))
    pairs.data[:] = 1  # once, however often
    counts = np.asarray(pairs.sum(axis=0)).astype(np.int64)
    n_of_user = np.diff(pairs.indptr)
    placed = spectral_vectors(
        lambda: [pairs], dim, user_counts=n_of_user.astype(np.int64), item_counts=counts, seed=0
    )
    vectors = placed * np.maximum(counts, 1)[:, np.newaxis] ** START_POWER
    queries = (pairs @ vectors) / np.sqrt(np.maximum(n_of_user, 1))[:, np.newaxis]
    kept = n_of_user > 0
    return vectors.astype(np.float32), queries[kept].astype(np.float32)
