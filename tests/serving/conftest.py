"""A small world: users and items with features, an untrained model of them, and its bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from serving.directions import DIRECTIONS
from serving.embeddings import Embeddings
from serving.graph_search import ExactSearch, ScannSearch
from serving.graphs import RetrievalModel, TowerModel
from serving.index_record import DirectionIndex, IndexRecord
from serving.manifest import Provenance
from serving.scann_index import ScannIndex, ScannSettings
from serving.seen import Seen
from serving.store import Store
from towers import fm
from towers.encoder import Encoder
from towers.schema import Categorical, Features, History, MultiValued, Numeric, Schema, Side
from towers.vocabulary import fit_vocabulary

N_USERS, N_ITEMS, DEFAULT_K = 60, 120, 7
TREE = ScannSettings(num_leaves=8, leaves_to_search=2, reorder=40, recall_k=20)
SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    user=Features(features=(History(), Categorical(column="city"))),
    item=Features(
        features=(
            Categorical(column="item_id"),
            MultiValued(column="genres"),
            Numeric(column="price"),
        )
    ),
)


class Tower(tf.Module):
    """Raw features to V_user or V_item."""

    def __init__(self, encoder: Encoder, *, w: tf.Variable, v: tf.Variable, side: Side) -> None:
        super().__init__()
        self.encoder, self.w, self.v, self.side = encoder, w, v, side

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        x = self.encoder(features)
        if self.side == "user":
            return fm.user_vector(x, self.v)
        return fm.item_vector(x, self.w, self.v)


@dataclass(frozen=True, eq=False)
class World:
    """What a bundle is made of. User ids are integers and item ids text; a user's history is not
    in its table, but `seen` has it."""

    sides: dict[Side, Embeddings]
    towers: dict[Side, Tower]
    seen: Seen

    def search(self, direction: str, kind: Literal["scann", "exact"]) -> ExactSearch | ScannSearch:
        chosen = DIRECTIONS[direction]
        corpus = chosen.corpus(self.sides[chosen.target].vectors).numpy()
        if kind == "exact":
            return ExactSearch(corpus)
        return ScannSearch(ScannIndex.build(corpus, TREE))

    def model(
        self, direction: str, search: ExactSearch | ScannSearch, *, own_id: str | None = None
    ) -> RetrievalModel:
        chosen = DIRECTIONS[direction]
        tower = self.towers[chosen.source]
        return RetrievalModel(
            tower,
            signature=tower.encoder.signature,
            direction=chosen,
            search=search,
            ids=self.sides[chosen.target].ids,
            k=DEFAULT_K,
            own_id=own_id,
        )


@pytest.fixture(scope="session")
def world() -> World:
    random = np.random.default_rng(5)
    users = pd.DataFrame(
        {"user_id": np.arange(N_USERS) + 2**40, "city": random.choice(["a", "b", "c"], N_USERS)}
    )
    items = pd.DataFrame(
        {
            "item_id": [f"item {row}" for row in range(N_ITEMS)],
            "genres": [["x", "y"][: row % 3] for row in range(N_ITEMS)],
            "price": random.normal(size=N_ITEMS),
            "title": [f"Title {row}" for row in range(N_ITEMS)],
        }
    )
    pairs = random.random((N_USERS, N_ITEMS)) < 0.1
    user_rows, item_rows = np.nonzero(pairs)
    interactions = pd.DataFrame(
        {
            "user_id": users["user_id"].to_numpy()[user_rows],
            "item_id": items["item_id"].to_numpy()[item_rows],
        }
    )
    vocabulary = fit_vocabulary(SCHEMA, users=users, items=items, interactions=interactions)
    w = tf.Variable(random.normal(size=vocabulary.n_rows), dtype=tf.float32)
    v = tf.Variable(random.normal(size=(vocabulary.n_rows, 6)) / 3, dtype=tf.float32)
    sides: tuple[Side, ...] = ("user", "item")
    towers = {
        side: Tower(Encoder(SCHEMA, vocabulary, side=side), w=w, v=v, side=side) for side in sides
    }
    histories = [items["item_id"].to_numpy()[row].tolist() for row in pairs]
    vectors = {
        "user": towers["user"](
            {
                "history": tf.ragged.constant(histories).to_tensor(""),
                "city": tf.constant(users["city"].tolist()),
            }
        ),
        "item": towers["item"](
            {
                "item_id": tf.constant(items["item_id"].tolist()),
                "genres": tf.ragged.constant(items["genres"].tolist()).to_tensor(""),
                "price": tf.constant(items["price"], tf.float32),
            }
        ),
    }
    return World(
        sides={
            "user": Embeddings(users, vectors["user"].numpy()),
            "item": Embeddings(items, vectors["item"].numpy()),
        },
        towers=towers,
        seen=Seen(scipy.sparse.csr_array(pairs)),
    )


@pytest.fixture(scope="session")
def publish(world: World) -> Callable[[Path, Literal["scann", "exact"]], Path]:
    """Publish the world with one kind of index, models and all."""

    def write(root: Path, kind: Literal["scann", "exact"]) -> Path:
        store = Store(root)
        with store.staging() as staged:
            version = store.version_of(staged)
            world.sides["user"].write(staged / "users.parquet")
            world.sides["item"].write(staged / "items.parquet")
            world.seen.write(staged / "seen.parquet")
            for side, tower in world.towers.items():
                model = TowerModel(tower, signature=tower.encoder.signature)
                model.save(staged / "models" / f"{side}_tower" / str(version))
            for name, chosen in DIRECTIONS.items():
                corpus = chosen.corpus(world.sides[chosen.target].vectors).numpy()
                search: ExactSearch | ScannSearch = ExactSearch(corpus)
                if kind == "scann":
                    index = ScannIndex.build(corpus, TREE)
                    index.save(staged / "index" / name)
                    search = ScannSearch(index)
                own_id = "item_id" if name == "i2i" else None
                model = world.model(name, search, own_id=own_id)
                model.save(staged / "models" / name / str(version))
            record = IndexRecord(
                kind=kind,
                directions={
                    name: DirectionIndex(settings=TREE if kind == "scann" else None, recall=1.0)
                    for name in DIRECTIONS
                },
            )
            store.publish(
                staged,
                Provenance(
                    name="world",
                    schema_fingerprint=SCHEMA.fingerprint(),
                    config={"user": None},
                    parent_version=None,
                    mined=None,
                    index=record.to_dict(),
                    metrics={},
                ),
            )
        store.activate(version)
        return root

    return write
