from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipelines.cli import demo
from pipelines.cli.demo import NEWCOMER, QUERIES, run_demo, serve_demo
from pipelines.config import RunConfig, load_config
from pipelines.progress import Reporter
from serving.server.process import Addresses
from serving.server.runtime.settings import ServerSettings
from serving.version.store import Store
from tests.without_graphs import TOWERS, without_graphs
from towers.directions import DIRECTIONS

pytestmark = pytest.mark.slow

N_USERS, N_ITEMS = 80, 200

HIT = re.compile(r"^ *(\d) +\d+ +-?\d+\.\d{4} ", re.MULTILINE)
"""Rank, id and score of a hit as it is shown."""


def fetch(folder: Path, *, say: Callable[[str], None]) -> Path:
    """Write tables like those of MovieLens 100k: users like films of their own kind."""
    rng = np.random.default_rng(5)
    users, items = np.arange(1, N_USERS + 1), np.arange(1, N_ITEMS + 1)
    likes = np.where(users[:, np.newaxis] % 2 == items % 2, 0.25, 0.03)
    user, item = np.nonzero(rng.random((N_USERS, N_ITEMS)) < likes)
    tables = {
        "interactions": pd.DataFrame(
            {
                "user_id": users[user],
                "item_id": items[item],
                "rating": rng.integers(3, 6, len(user)),
                "timestamp": rng.permutation(len(user)),
            }
        ),
        "users": pd.DataFrame(
            {
                "user_id": users,
                "age": 20 + users % 50,
                "gender": np.where(users % 2, "F", "M"),
                "occupation": np.where(users % 3, "scientist", "writer"),
            }
        ),
        "items": pd.DataFrame(
            {
                "item_id": items,
                "title": [f"Film {item}" for item in items],
                "year": pd.array([1950 + n % 50 if n != 7 else None for n in items], "Int64"),
                "genres": [["Drama", "War"][: n % 3] for n in items],
            }
        ),
    }
    target = folder / "movielens-100k"
    target.mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(target / f"{name}.parquet", index=False)
    say("fetched")
    return target


def load_quickly(path: Path) -> RunConfig:
    """The demo's configuration with one short fit."""
    config = load_config(path)
    quick = replace(config.training, epochs=1, rounds=0, refit_on_all=False)
    return replace(config, training=quick)


def test_the_demo_asks_what_its_configuration_can_answer(tmp_path: Path) -> None:
    text = resources.files("pipelines.cli").joinpath("demo.toml").read_text(encoding="utf-8")
    (tmp_path / "demo.toml").write_text(text, encoding="utf-8")
    schema = load_config(tmp_path / "demo.toml").schema
    assert set(QUERIES) == set(DIRECTIONS)
    assert set(NEWCOMER) == set(schema.input_names("user"))


@pytest.mark.slow
def test_the_demo_runs_the_whole_job_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "fetch_movielens_100k", fetch)
    monkeypatch.setattr(demo, "load_config", load_quickly)
    console = Console(file=io.StringIO(), width=160)
    with without_graphs(but=TOWERS):
        models = run_demo(tmp_path / "demo", Reporter(console))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    store = Store(models)
    assert store.versions() == [1]
    assert store.open().manifest.index["kind"] == "scann"
    for expected in ("fetched", "Test figures at 20", "round 0 (v1)"):
        assert expected in text
    answers = {title: text.partition(title)[2] for title, _ in QUERIES.values()}
    answers["newcomer"] = text.partition("newcomer")[2]
    for answer in answers.values():
        assert HIT.findall(answer)[:5] == ["1", "2", "3", "4", "5"]
    like_it, _, why = text.partition("The Matrix (1999), which")[2].partition("Of ")
    assert HIT.findall(like_it) == ["1", "2", "3", "4", "5"]
    said = re.match(r"(\d+) films, The Matrix \(1999\) is number (\d+) for the newcomer", why)
    assert said is not None
    assert 1 <= int(said[2]) <= int(said[1]) == N_ITEMS + 1 - len(NEWCOMER["history"])
    assert re.search(r"By field.*user_item +history +year", why, re.DOTALL)


def test_serving_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Path, ServerSettings]] = []

    def run(models: Path, *, settings: ServerSettings, ready: Callable[[Addresses], None]) -> None:
        served.append((models, settings))
        ready(Addresses("http://127.0.0.1:8502", "127.0.0.1:1"))

    monkeypatch.setattr(demo, "run_server", run)
    console = Console(file=io.StringIO(), width=160)
    serve_demo(console, tmp_path, port=8502)
    assert isinstance(console.file, io.StringIO)
    assert "http://127.0.0.1:8502/ in a browser" in console.file.getvalue()
    assert served == [(tmp_path, ServerSettings(port=8502, grpc_port=0))]
