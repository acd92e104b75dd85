"""A version in memory to list candidates from, and what its channels must list, by plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray

from serving.retrieval.catalogue import Catalogue
from serving.search.live_index import LiveExactIndex, LiveIndex, LiveScannIndex
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.version.embeddings import Embeddings
from serving.version.recent import Recent
from serving.version.seen import Seen
from towers.directions import DIRECTIONS
from towers.features.kinds import Features, History, Numeric
from towers.features.packer import Input
from towers.features.schema import Schema, Side

Ranked = tuple[NDArray[Any], NDArray[Any]]


SCHEMA = Schema.of(
    user_id="user_id",
    item_id="item_id",
    user=Features(features=(History(), Numeric(column="age"))),
    item=None,
)


class SumTower:
    """A user's vector is the sum of those of its history, and its age."""

    def __init__(self, world: World) -> None:
        self.inputs = {
            "history": Input(dtype=object, rank=2, is_id=True),
            "age": Input(dtype=np.float32),
        }
        self._world = world

    def __call__(self, packed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        vectors = np.zeros((len(packed["age"]), self._world.items.vectors.shape[1]), np.float32)
        for row, history in enumerate(packed["history"]):
            rows = self._world.items.ids.find(history)
            vectors[row] = self._world.items.vectors[rows[rows >= 0]].sum(axis=0)
        vectors[:, 0] = 1
        vectors[:, 1] += np.nan_to_num(packed["age"]) / 100
        return vectors


@dataclass(frozen=True, eq=False)
class World:
    """What `Parts` has of a version: integer user ids, items ids as text."""

    users: Embeddings
    items: Embeddings
    seen: Seen
    recent: Recent
    tree: ScannSettings | None = None
    history: str = "history"
    history_columns: Mapping[str, str | None] = field(
        default_factory=lambda: {"history": "history"}
    )
    seen_histories: Sequence[str] = ("history",)
    schema: Schema = SCHEMA
    bundle: Any = field(default_factory=lambda: SimpleNamespace(version=7))

    @classmethod
    def random(
        cls,
        n_users: int = 30,
        n_items: int = 50,
        *,
        seed: int = 0,
        tree: ScannSettings | None = None,
    ) -> World:
        rng = np.random.default_rng(seed)
        vectors = {
            name: rng.normal(size=(size, 7)).astype(np.float32)
            for name, size in (("user", n_users), ("item", n_items))
        }
        vectors["user"][:, 0] = 1
        items = pd.DataFrame(
            {
                "item_id": np.array([f"item {row}" for row in range(n_items)], dtype=object),
                "year": 1990 + np.arange(n_items) % 10,
            }
        )
        users = pd.DataFrame({"user_id": np.arange(n_users) + 2**60})
        pairs = rng.random((n_users, n_items)) < np.linspace(0.3, 0.02, n_items)
        return cls(
            Embeddings.from_pandas(users, vectors["user"]),
            Embeddings.from_pandas(items, vectors["item"]),
            Seen(scipy.sparse.csr_array(pairs)),
            Recent(counts=rng.integers(0, 9, n_items), window=7.0, until=100.0),
            tree,
        )

    @cached_property
    def catalogue(self) -> Any:
        return cache(lambda side: Catalogue(self.users if side == "user" else self.items))

    @cached_property
    def index(self) -> Any:
        return cache(self._index)

    def null_values(self, side: Side) -> frozenset[str]:
        return frozenset({"NULL"})

    def tower(self, side: Side) -> Any:
        return SumTower(self) if side == "user" else SimpleNamespace(inputs={})

    def _index(self, name: str) -> LiveIndex:
        corpus = self.corpus(name)
        if self.tree is None:
            return LiveExactIndex(corpus)
        return LiveScannIndex(ScannIndex.build(corpus, self.tree))

    def corpus(self, name: str) -> NDArray[np.float32]:
        chosen = DIRECTIONS[name]
        side = self.users if chosen.target == "user" else self.items
        return chosen.project(side.vectors)

    def has(self, user: int) -> NDArray[np.int64]:
        return self.seen.of("user", user)

    def users_table(self, rows: Any) -> pa.Table:
        return pa.table({"user_id": self.users.ids.to_numpy()[rows]})

    def u2i(self, user: int) -> NDArray[Any]:
        """The score of every item for a user."""
        scores: NDArray[Any] = self.items.vectors @ self.users.vectors[user]
        return scores

    def i2i(self, latest: Any) -> NDArray[Any]:
        """The score of every item for latest items; they themselves are out."""
        corpus = self.corpus("i2i")
        cosines = corpus @ corpus[latest].T
        cosines[latest, np.arange(len(latest))] = -np.inf
        scores: NDArray[Any] = cosines.max(axis=1)
        return scores

    def u2u2i(self, user: int, *, neighbours: int) -> NDArray[Any]:
        """The score of every item by similar users; -inf where none has it."""
        corpus = self.corpus("u2u")
        similar = corpus @ corpus[user]
        similar[user] = -np.inf
        nearest = np.argsort(-similar, kind="stable")[:neighbours]
        nearest = nearest[similar[nearest] > 0]
        matrix = self.seen.matrix.toarray()[nearest]
        scores: NDArray[Any] = np.where(matrix.any(axis=0), similar[nearest] @ matrix, -np.inf)
        return scores

    def popularity(self) -> NDArray[Any]:
        counts: NDArray[Any] = self.seen.matrix.toarray().sum(axis=0).astype(float)
        return counts


def best(scores: NDArray[Any], *, without: Any, depth: int) -> Ranked:
    """The rows of the highest scores, best first, ties to the lower row; and the scores."""
    scores = scores.copy()
    scores[np.asarray(without, dtype=np.int64)] = -np.inf
    rows = np.argsort(-scores, kind="stable")[:depth]
    rows = rows[np.isfinite(scores[rows])]
    return rows, scores[rows]
