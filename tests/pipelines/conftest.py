"""A tiny world to run the whole job on: 60 users and 40 items in four taste groups."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from pipelines.cli import main as cli
from pipelines.config import RunConfig
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared, prepare
from pipelines.results import Results
from pipelines.run import run
from tests.made_once import made_once
from tests.without_graphs import TOWERS, without_graphs
from towers.typed import parse

N_USERS, N_ITEMS, N_GROUPS = 60, 40, 4

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {
        "interactions": {"timestamp": "time"},
        "users": {"id": "user_id"},
        "items": {"id": "item_id"},
    },
    "user": {
        "features": [
            {"kind": "history", "popularity_power": 0.4},
            {"kind": "categorical", "column": "city"},
            {"kind": "numeric", "column": "age"},
        ]
    },
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "multi_valued", "column": "tags"},
        ]
    },
    "model": {"embedding_dim": 8},
    "training": {
        "epochs": 3,
        "batch_size": 64,
        "folds": 5,
        "history_dropout": 0.1,
        "learning_rate": 0.0125,
        "first_order_rate": 0.1,
        "margin": 0.5,
        "l2": 0.01,
        "rounds": 1,
        "negatives": {
            "uniform": 10,
            "popularity": 4,
            "mined": 4,
            "mined_ranks": [2, 9],
            "hardest": 8,
        },
    },
    "evaluation": {"k": [5, 20], "metric": "recall@5"},
    "index": {"kind": "exact"},
    "export": {"k": 5},
}


def _tables() -> dict[str, pd.DataFrame]:
    """Users like the items of their group five times as often as others'."""
    rng = np.random.default_rng(7)
    user_group, item_group = np.arange(N_USERS) % N_GROUPS, np.arange(N_ITEMS) % N_GROUPS
    likes = np.where(user_group[:, np.newaxis] == item_group, 0.75, 0.15)
    user, item = np.nonzero(rng.random((N_USERS, N_ITEMS)) < likes)
    user_ids = np.arange(N_USERS) + 2**40
    item_ids = np.array([f"item {row} é" for row in range(N_ITEMS)], dtype=object)
    interactions = pd.DataFrame(
        {
            "user_id": user_ids[user],
            "item_id": item_ids[item],
            "time": rng.permutation(len(user)) + 1_000_000,
            "importance": rng.integers(1, 4, len(user)),
        }
    )
    users = pd.DataFrame(
        {
            "user_id": user_ids,
            "city": np.array(["Oslo", "Rome", "Łódź", "Lima"], dtype=object)[user_group],
            "age": rng.integers(18, 80, N_USERS).astype(float),
        }
    )
    items = pd.DataFrame(
        {
            "item_id": item_ids,
            "tags": [[f"group {group}", "any"] for group in item_group],
            "title": [f"Title {row}" for row in range(N_ITEMS)],
        }
    )
    return {"interactions": interactions, "users": users, "items": items}


@dataclass(frozen=True)
class Tiny:
    """The tables and the settings, and ways to run them."""

    tables: Mapping[str, Any] = field(default_factory=_tables, repr=False)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """The settings with some changed: `training={"epochs": 5}` changes that one alone."""
        return _merged(SETTINGS, changes)

    def config(self, **changes: Any) -> RunConfig:
        return parse(RunConfig, self.settings(**changes), where="tiny")

    def ids_only(self, **changes: Any) -> RunConfig:
        """Without features and their tables: users are their history, items their id."""
        settings = self.settings(**changes)
        del settings["user"], settings["item"], settings["data"]["users"], settings["data"]["items"]
        return parse(RunConfig, settings, where="tiny")

    def run(self, out: Path, **changes: Any) -> Results:
        return run(self.config(**changes), out, frames=self.tables)

    def write(self, folder: Path, *, suffix: str = "parquet", **changes: Any) -> Path:
        """Write the tables and the configuration; the path of the latter."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = self.settings(**changes)
        for name, table in self.tables.items():
            path = folder / f"{name}.{suffix}"
            settings["data"][name]["path"] = path.name
            if suffix == "parquet":
                table.to_parquet(path)
            else:
                plain = {c: table[c].str.join("|") for c in table if c == "tags"}
                table.assign(**plain).to_csv(path, index=False)
        config = folder / "tiny.toml"
        lines = [f"{name} = {_toml(value)}\n" for name, value in settings.items()]
        config.write_text("".join(lines), encoding="utf-8")
        return config

    @staticmethod
    def digest(folder: Path) -> dict[str, str]:
        """The sha256 of every file below `folder`, by its relative path."""
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    @staticmethod
    def left_over(out: Path) -> list[str]:
        """What a run leaves in a models directory beside what it is made of."""
        kept = {"versions", "models", "logs", "current", ".lock"}
        kept |= {"models.config", "batching.config", "monitoring.config"}
        found = (path for path in out.iterdir() if path.name not in kept)
        return sorted(path.name for path in found)


@pytest.fixture(scope="session", autouse=True)
def _models_loaded_once(models_loaded_once: None) -> None:
    """In all tests."""


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def prepared(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("tiny") / "prepared"
    return prepare(tiny.config(), folder, frames=tiny.tables)


@pytest.fixture(scope="session")
def dataset(tiny: Tiny, prepared: Prepared) -> Dataset:
    """The training part; validation and test are held out."""
    return assemble_dataset(
        tiny.config().schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
    )


@pytest.fixture(scope="session")
def published(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A models directory after two rounds, and their results. For reading only.

    It has the SavedModels of the towers and of one direction; tests/e2e has those of all.
    """

    def make(folder: Path) -> None:
        with without_graphs(but=(*TOWERS, "i2u")):
            results = tiny.run(folder / "models")
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    folder = made_once(tmp_path_factory, "tiny", make)
    return folder / "models", json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with some of them changed."""
    merged = dict(settings)
    for name, value in changes.items():
        is_table = isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)
        merged[name] = _merged(settings[name], value) if is_table else value
    return json.loads(json.dumps(merged))  # type: ignore[no-any-return]


def _toml(value: Any) -> str:
    """A value as TOML; tables inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(v)}" for name, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@pytest.fixture
def no_graphs() -> Iterator[None]:
    """Write and check no SavedModels."""
    with without_graphs():
        yield


@pytest.fixture
def towers_alone() -> Iterator[None]:
    """Write the SavedModels of the towers alone, with which a version can be opened."""
    with without_graphs(but=TOWERS):
        yield


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line in this process, with a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")

    def answer(*args: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fm-recall", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Answer(0 if code is None else int(code), *capsys.readouterr())

    return answer


@pytest.fixture
def models(published: tuple[Path, Results]) -> Path:
    return published[0]
