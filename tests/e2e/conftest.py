"""Models directories that whole runs published, and a process that has nothing but TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipelines.config import (
    EvaluationConfig,
    ExportConfig,
    IndexConfig,
    ModelConfig,
    NegativesConfig,
    RunConfig,
    SplitConfig,
    TrainingConfig,
)
from pipelines.publishing import cut_by_length
from pipelines.results import Results
from pipelines.run import run
from pipelines.table_config import DataConfig, EntityTable, InteractionsTable
from serving.retrieval.retriever import Retriever
from serving.search import scann_index
from serving.version.vocabulary_files import read_vocabulary
from tests.made_once import made_once
from tests.without_graphs import without_plots
from towers.directions import DIRECTIONS
from towers.features.kinds import Categorical, Features, History, MultiValued, Numeric, Vector
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Side

TEST_FRACTION = 0.2
FEWEST = 8_000
"""So many vectors are cut into leaves; unlike in a run of the product, which scores as many one by
one."""
USER_FEATURES = Features(
    features=(
        History(latest=8),
        Categorical(column="user_id", min_count=4),
        Categorical(column="city", min_count=2),
        Categorical(column="device", hash_buckets=5),
        MultiValued(column="interests", weights="interest_weights", combiner="mean"),
        Numeric(column="age"),
        Numeric(column="income", buckets=4),
        Vector(column="taste"),
    )
)
ITEM_FEATURES = Features(
    features=(
        Categorical(column="item_id", min_count=2),
        Categorical(column="shop"),
        Categorical(column="brand", hash_buckets=7),
        MultiValued(column="genres", weights="genre_weights", combiner="sum"),
        MultiValued(column="words", hash_buckets=6),
        Numeric(column="price"),
        Numeric(column="stock", scale="none"),
        Numeric(column="year", buckets=3),
        Vector(column="cover", scale="standard"),
        Vector(column="text"),
    )
)


@dataclass(frozen=True, eq=False)
class Published:
    """A models directory, and the run that made it."""

    root: Path
    config: RunConfig
    frames: Mapping[str, pd.DataFrame]
    results: Results

    def open(self, version: int | None = None) -> Retriever:
        return Retriever.open(self.root, version=version)

    @property
    def kept(self) -> pd.DataFrame:
        """The interactions that a version has learned from: all but the latest, in their order."""
        return self._ordered.iloc[: self._n_kept]

    @property
    def held_out(self) -> pd.DataFrame:
        """The latest interactions."""
        return self._ordered.iloc[self._n_kept :]

    def features(self, side: Side, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Raw values by feature of some users, with their histories, or of some items."""
        table = self.frames[f"{side}s"]
        if side == "user":
            histories = self.kept.groupby("user_id")["item_id"].agg(list)
            of_user = [histories.get(user, []) for user in table["user_id"]]
            table = table.assign(history=pd.Series(of_user, dtype=object))
        names = self.config.schema.input_names(side)
        return {name: table[name].iloc[list(rows)].tolist() for name in names}

    def packed(self, side: Side, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        """The same as dense arrays with markers for what is missing, as SavedModels take them."""
        vocabulary = read_vocabulary(self.open().bundle.vocabulary)
        inputs = input_dtypes(self.config.schema, vocabulary, side=side)
        return pack(self.features(side, rows), inputs=inputs, size=len(rows))

    @property
    def _ordered(self) -> pd.DataFrame:
        rows = self.frames["interactions"].sort_values("time")
        return rows.drop_duplicates(["user_id", "item_id"])

    @property
    def _n_kept(self) -> int:
        return round(len(self._ordered) * (1 - TEST_FRACTION))


@dataclass(frozen=True)
class Fresh:
    """What a process without this project made of a bundle's SavedModels."""

    answers: Mapping[str, dict[str, NDArray[Any]]]
    """Outputs, by the names that the calls were given."""
    custom: Mapping[str, list[str]]
    """The operations that are not TensorFlow's own, by model."""


AskFresh = Callable[[Published, Mapping[str, Mapping[str, Any]]], Fresh]
"""Makes calls, by name: `model` (a direction, or the name of a tower's model), `inputs` (arrays or
numbers by name), and maybe `signature`, and `in_session` to load the model as TF Serving does."""

CALL = {"signature": "serving_default", "in_session": False}
"""What a call is unless it says otherwise."""


def make_frames(
    *, n_users: int, n_items: int, n_interactions: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Tables with features of every kind, one in ten missing, and some users and items unseen."""
    rng = np.random.default_rng(seed)

    def tokens(stem: str, n: int, size: int) -> list[str | None]:
        return [f"{stem} {i}" if rng.random() < 0.9 else None for i in rng.integers(n, size=size)]

    def numbers(size: int) -> NDArray[np.float64]:
        return np.where(rng.random(size) < 0.9, rng.normal(40, 9, size), np.nan)

    def bags(stem: str, size: int) -> list[list[str]]:
        return [[f"{stem} {i}" for i in rng.permutation(5)[: rng.integers(4)]] for _ in range(size)]

    def weights(bags: list[list[str]]) -> list[list[float]]:
        return [rng.uniform(0.1, 2.0, len(bag)).tolist() for bag in bags]

    other = np.random.default_rng(seed + 1)

    def vectors(size: int, *, length: int) -> list[NDArray[np.float64] | None]:
        rows = other.normal(0.5, 2.0, (size, length))
        return [row if other.random() < 0.9 else None for row in rows]

    interests, genres = bags("弦楽", n_users), bags("comédie", n_items)
    users = pd.DataFrame(
        {
            "user_id": 2**60 + 3 * np.arange(n_users),
            "city": tokens("Zürich", 4, n_users),
            "device": tokens("device", 20, n_users),
            "interests": interests,
            "interest_weights": weights(interests),
            "age": numbers(n_users),
            "income": numbers(n_users),
            "taste": [v if v is None else str(v.tolist()) for v in vectors(n_users, length=5)],
        }
    )
    users.loc[n_users - 1, users.columns.drop("user_id")] = None  # of whom nothing is known
    shops = pd.Series(2**55 + rng.integers(6, size=n_items), dtype="Int64")
    items = pd.DataFrame(
        {
            "item_id": [f"物品 «{number}»" for number in range(n_items)],
            "shop": shops.mask(pd.Series(rng.random(n_items) < 0.1)),
            "brand": tokens("brand", 30, n_items),
            "genres": genres,
            "genre_weights": weights(genres),
            "words": bags("word", n_items),
            "price": numbers(n_items),
            "stock": rng.random(n_items),
            "year": numbers(n_items),
            "cover": vectors(n_items, length=4),
            "text": [v if v is None else v.tolist() for v in vectors(n_items, length=7)],
            "title": [f"Title {number}" for number in range(n_items)],
        }
    )
    interactions = pd.DataFrame(
        {
            "user_id": rng.choice(users["user_id"].to_numpy()[:-3], n_interactions),
            "item_id": rng.choice(items["item_id"].to_numpy()[:-4], n_interactions),
            "time": rng.permutation(n_interactions),
        }
    )
    return {"users": users, "items": items, "interactions": interactions}


def make_config(*, index: IndexConfig, rounds: int, epochs: int = 2, dim: int = 6) -> RunConfig:
    """A run over such tables, split by time."""
    return RunConfig(
        data=DataConfig(
            interactions=InteractionsTable(timestamp="time"),
            users=EntityTable(id="user_id"),
            items=EntityTable(id="item_id"),
        ),
        user=USER_FEATURES,
        item=ITEM_FEATURES,
        split=SplitConfig(test_fraction=TEST_FRACTION, validation_fraction=0.0),
        model=ModelConfig(embedding_dim=dim, init="normal", init_norm=0.7),
        training=TrainingConfig(
            epochs=epochs,
            rounds=rounds,
            learning_rate=0.0065,
            negatives=NegativesConfig(uniform=48, mined=4, mined_ranks=(3, 30)),
        ),
        evaluation=EvaluationConfig(k=(5, 10), metric="recall@10"),
        index=index,
        export=ExportConfig(k=9),
    )


def publish(root: Path, config: RunConfig, frames: Mapping[str, pd.DataFrame]) -> Published:
    return Published(root, config, frames, run(config, root, frames=frames))


def publish_once(
    factory: pytest.TempPathFactory,
    name: str,
    config: RunConfig,
    frames: Mapping[str, pd.DataFrame],
) -> Published:
    """Publish for all processes of a test run. For reading only."""

    def make(folder: Path) -> None:
        with without_plots():
            results = publish(folder / "models", config, frames).results
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    folder = made_once(factory, name, make)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return Published(folder / "models", config, frames, results)


@pytest.fixture(scope="session", autouse=True)
def _models_loaded_once(models_loaded_once: None) -> None:
    """In all tests."""


@pytest.fixture(scope="session")
def frames() -> dict[str, pd.DataFrame]:
    return make_frames(n_users=50, n_items=120, n_interactions=700, seed=3)


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, pd.DataFrame]) -> Published:
    """Two versions, the second fitted with negatives that the first retrieved."""
    config = make_config(index=IndexConfig(kind="exact"), rounds=1)
    return publish_once(tmp_path_factory, "exact", config, frames)


@pytest.fixture(scope="session")
def scann(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, pd.DataFrame]) -> Published:
    """One version with ScaNN's operations; its corpora are too small for a tree."""
    config = make_config(index=IndexConfig(kind="scann"), rounds=0)
    return publish_once(tmp_path_factory, "scann", config, frames)


@pytest.fixture(scope="session", params=["exact", "scann"])
def published(request: pytest.FixtureRequest) -> Published:
    """Each of the two."""
    found: Published = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One version with so many users and items that ScaNN cuts both into leaves."""
    config = make_config(index=IndexConfig(recall_k=50), rounds=0, epochs=1, dim=12)
    frames = make_frames(
        n_users=FEWEST + 500, n_items=FEWEST + 1000, n_interactions=4 * FEWEST, seed=4
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (scann_index, cut_by_length):
            patch.setattr(module, "FEWEST_FOR_TREE", FEWEST)
        return publish_once(tmp_path_factory, "tree", config, frames)


@pytest.fixture(scope="session")
def ask_fresh(tmp_path_factory: pytest.TempPathFactory) -> AskFresh:
    """Ask in a process that has TensorFlow, ScaNN only if the index needs it, and nothing else."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def ask(published: Published, calls: Mapping[str, Mapping[str, Any]]) -> Fresh:
        bundle = published.open().bundle
        names = ["user_tower", "item_tower", *DIRECTIONS]
        allowed = ["scann"] if published.config.index.kind == "scann" else []
        forbidden = {"towers", "serving", "pipelines", "tf_keras", "tensorflow_recommenders"}
        request = {
            "models": {name: str(bundle.model(name)) for name in names},
            "imported": allowed,
            "forbidden": sorted(forbidden | {"scann"} - set(allowed)),
            "calls": [_plain({**CALL, **call}) for call in calls.values()],
        }
        client = subprocess.run(
            [sys.executable, "-I", str(Path(__file__).with_name("saved_model_client.py"))],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={name: v for name, v in os.environ.items() if not name.startswith("TF_")},
            check=False,
        )
        assert client.returncode == 0, client.stderr
        reply = json.loads(client.stdout)
        answers = [{n: np.array(v) for n, v in outputs.items()} for outputs in reply["answers"]]
        return Fresh(dict(zip(calls, answers, strict=True)), reply["custom"])

    return ask


def _plain(call: Mapping[str, Any]) -> dict[str, Any]:
    """The same call, ready for JSON."""
    inputs = call["inputs"].items()
    return {
        **call,
        "inputs": {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in inputs},
    }
