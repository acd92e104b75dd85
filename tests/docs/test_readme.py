"""What the README shows works: its TOML file, its commands and its Python, in their order."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.config import load_config
from tests.without_graphs import TOWERS, without_graphs

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [body for name, body in BLOCK.findall(text) if name == language]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop: the tables and the run file that the README names."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    users, items = np.arange(1, 61), np.arange(1, 31)
    clicks = pd.DataFrame(
        [(user, item) for user in users for item in rng.choice(items, 8, replace=False)],
        columns=["user_id", "item_id"],
    )
    clicks["time"] = rng.permutation(len(clicks)).astype(float)
    clicks.to_parquet(folder / "clicks.parquet")
    clicks[["user_id"]].drop_duplicates().to_parquet(folder / "users.parquet")
    tags = ["|".join(rng.choice(["red", "wool", "sale"], 2, replace=False)) for _ in items]
    pd.DataFrame({"id": items, "item_id": items, "tags": tags})[["item_id", "tags"]].to_csv(
        folder / "items.csv", index=False
    )
    (folder / "shop.toml").write_text(blocks("toml")[0], encoding="utf-8")
    return folder


def shorten(path: Path, **training: Any) -> None:
    """Have a run file train less than it says, which tells as much of whether it works."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    raw["training"] = raw.get("training", {}) | training
    path.write_text(tomli_w.dumps(raw), encoding="utf-8")


def type_in(commands: list[str]) -> None:
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command, comments=True)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception}"


@pytest.mark.slow
def test_commands_and_python_run(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    commands = [
        line for block in blocks("") for line in block.splitlines() if line.startswith("fm-recall")
    ]
    assert commands
    shorten(Path("shop.toml"), epochs=2, refit_on_all=False)
    tuned = 1 + next(at for at, command in enumerate(commands) if " tune " in command)
    with without_graphs(but=(*TOWERS, "u2i")):
        type_in(commands[:tuned])
    assert load_config(Path("tuned", "best.toml")).training.rounds == 1
    for path in (Path("tuned", "best.toml"), Path("shop.toml")):
        shorten(path, rounds=0)  # two rounds, and SavedModels, have been shown to work by now
    names: dict[str, Any] = {}
    with without_graphs(but=TOWERS):
        type_in(commands[tuned:])
        for snippet in blocks("python"):
            exec(compile(snippet, "README.md", "exec"), names)
    assert names["hits"].ids.shape == (2, 30)


def test_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_examples_can_be_loaded() -> None:
    found = [*(ROOT / "benchmarks").glob("*.toml")]
    assert found
    for path in found:
        assert load_config(path).schema
