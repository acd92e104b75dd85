"""A small world: users and items with features, an untrained model of them, and its bundles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from numpy.typing import NDArray

from serving.search.graph_search import ExactSearch, ScannSearch
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.version.embeddings import Embeddings
from serving.version.index_record import DirectionIndex, IndexRecord
from serving.version.manifest import Provenance
from serving.version.saved_models.graphs import RetrievalModel, TowerModel
from serving.version.seen import Seen
from serving.version.store import Store
from serving.version.vocabulary_files import write_vocabulary
from tests.counted import counted
from tests.made_once import made_once
from towers.directions import DIRECTIONS
from towers.features.encoder import Encoder
from towers.features.kinds import Categorical, Features, History, MultiValued, Numeric
from towers.features.schema import Schema, Side
from towers.features.vocabulary import Vocabulary, fit_vocabulary

Kind = Literal["scann", "exact"]
Publish = Callable[..., None]

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
            Numeric(column="price", scale="standard"),
        )
    ),
)


@dataclass(frozen=True, eq=False)
class World:
    """What a bundle is made of. User ids are integers and item ids text; a user's history is not
    in its table, but `seen` has it."""

    sides: dict[Side, Embeddings]
    vocabulary: Vocabulary
    towers: dict[Side, TowerModel]
    seen: Seen
    trees: Path
    """Folders with ScaNN's index of each direction: no two builds of one are equal."""

    def features(self, side: Side, row: int) -> dict[str, Any]:
        """One batch of one: the raw values that the side's tower reads."""
        (values,) = self.sides[side].table.slice(row, 1).to_pylist()
        values["history"] = self.sides["item"].ids.take(self.seen.of("user", row)).tolist()
        return {name: [values[name]] for name in self.towers[side].signature}

    def rank(self, direction: str, row: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The ids of all targets for a source, best first, and their scores, by plain NumPy."""
        chosen = DIRECTIONS[direction]
        source = self.sides[chosen.source].vectors[row]
        targets = self.sides[chosen.target]
        scores = targets.vectors @ source
        if chosen.is_similarity:
            pooled = targets.vectors[:, 1:]
            norms = np.linalg.norm(pooled, axis=1) * np.linalg.norm(source[1:])
            scores = pooled @ source[1:] / norms
        order = np.argsort(-scores, kind="stable")
        return targets.ids.take(order), scores[order]

    @cached_property
    def indexes(self) -> dict[str, ScannIndex]:
        """ScaNN's index of each direction, with a tree."""
        widths = {name: self.corpus(name).shape[1] for name in DIRECTIONS}
        return {
            name: ScannIndex.load(self.trees / name, settings=TREE, width=width)
            for name, width in widths.items()
        }

    def build_trees(self, root: Path) -> None:
        """Build the index of each direction in a folder of its name under `root`."""
        for name in DIRECTIONS:
            ScannIndex.build(self.corpus(name), TREE).save(root / name)

    def corpus(self, direction: str) -> NDArray[np.float32]:
        chosen = DIRECTIONS[direction]
        return chosen.project(self.sides[chosen.target].vectors)

    def model(self, direction: str, kind: Kind) -> RetrievalModel:
        """The retrieval model; in i2i it knows the item's own id, in u2u the user's is no input."""
        chosen = DIRECTIONS[direction]
        tower = self.towers[chosen.source]
        exact = kind == "exact"
        return RetrievalModel(
            tower,
            signature=tower.signature,
            direction=chosen,
            search=ExactSearch(self.corpus(direction))
            if exact
            else ScannSearch.of(self.indexes[direction]),
            ids=self.sides[chosen.target].ids.to_numpy(),
            k=DEFAULT_K,
            own_id="item_id" if direction == "i2i" else None,
        )


@pytest.fixture(scope="session", autouse=True)
def _models_loaded_once(models_loaded_once: None) -> None:
    """In all tests."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
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
    vocabulary = fit_vocabulary(
        SCHEMA, **counted(users=users, items=items, interactions=interactions)
    )
    w = tf.Variable(random.normal(size=vocabulary.n_rows), dtype=tf.float32)
    v = tf.Variable(random.normal(size=(vocabulary.n_rows, 6)) / 3, dtype=tf.float32)
    sides: tuple[Side, ...] = ("user", "item")
    towers = {
        side: TowerModel(
            Encoder(SCHEMA, vocabulary, side=side), v=v, w=w if side == "item" else None
        )
        for side in sides
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
    world = World(
        sides={
            "user": Embeddings.from_pandas(users, vectors["user"].numpy()),
            "item": Embeddings.from_pandas(items, vectors["item"].numpy()),
        },
        vocabulary=vocabulary,
        towers=towers,
        seen=Seen(scipy.sparse.csr_array(pairs)),
        trees=Path(),
    )
    trees = made_once(tmp_path_factory, "trees", world.build_trees)
    return dataclasses.replace(world, trees=trees)


@pytest.fixture(scope="session")
def publish(world: World) -> Publish:
    """Publish the world with one kind of index, and the SavedModels of some directions."""

    def publish(root: Path, kind: Kind, directions: Iterable[str] = ()) -> None:
        store = Store(root)
        with store.staging() as staged:
            version = store.version_of(staged)
            for side, embeddings in world.sides.items():
                embeddings.write(staged / f"{side}s.parquet")
                folder = staged / "models" / f"{side}_tower" / str(version)
                world.towers[side].save(folder)
            write_vocabulary(world.vocabulary, staged / "vocabulary")
            world.seen.write(staged / "seen.parquet")
            for name in DIRECTIONS:
                if kind == "scann":
                    world.indexes[name].save(staged / "index" / name)
            for name in directions:
                folder = staged / "models" / name / str(version)
                world.model(name, kind).save(folder)
            store.publish(staged, provenance(kind))
        store.activate(version)

    return publish


def provenance(kind: Kind) -> Provenance:
    index = DirectionIndex(settings=TREE if kind == "scann" else None, recall=1.0)
    record = IndexRecord(kind=kind, directions=dict.fromkeys(DIRECTIONS, index))
    return Provenance(
        name="world",
        schema_fingerprint=SCHEMA.fingerprint(),
        config={
            "data": {"interactions": {"user": SCHEMA.user_id, "item": SCHEMA.item_id}},
            "user": dataclasses.asdict(SCHEMA.user),
            "item": dataclasses.asdict(SCHEMA.item),
            "export": {"k": DEFAULT_K},
        },
        parent_version=None,
        mined=None,
        index=record.to_dict(),
        metrics={},
    )


@pytest.fixture(scope="session")
def models(publish: Publish, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory: version 1 has exact indexes, version 2, the current, ScaNN's."""

    def make(root: Path) -> None:
        publish(root, "exact")
        publish(root, "scann")

    return made_once(tmp_path_factory, "world", make)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in which nothing has been published, and whose folder does not exist yet."""
    return Store(tmp_path / "deep" / "root")
