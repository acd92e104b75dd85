"""What docs/explanations.md shows works: its commands, its Python and its request."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.config import RunConfig
from pipelines.run import run
from serving.server.api.explain_routes import ExplainQuery
from tests.without_graphs import TOWERS, without_graphs
from towers.typed import parse

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "explanations.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
N_USERS, N_ITEMS = 40, 180
SETTINGS: dict[str, Any] = {
    "data": {"interactions": {}, "users": {"id": "user_id"}, "items": {"id": "item_id"}},
    "user": {"features": [{"kind": "history"}, {"kind": "numeric", "column": "age"}]},
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "multi_valued", "column": "genres"},
        ]
    },
    "model": {"embedding_dim": 4},
    "training": {"epochs": 1, "rounds": 0, "refit_on_all": False},
    "index": {"kind": "exact"},
}


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return [body for name, body in BLOCK.findall(text) if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a demo/models of few users and items, with the columns of the demo."""
    folder = tmp_path_factory.mktemp("explanations")
    rng = np.random.default_rng(0)
    users, items = np.arange(N_USERS) + 1, np.arange(N_ITEMS) + 1
    frames = {
        "users": pd.DataFrame({"user_id": users, "age": rng.integers(18, 70, N_USERS)}),
        "items": pd.DataFrame(
            {
                "item_id": items,
                "title": [f"Film {item}" for item in items],
                "genres": [["Drama", "Comedy"][: item % 3] for item in items],
            }
        ),
        "interactions": pd.DataFrame(
            [(user, item) for user in users for item in rng.choice(items, 30, replace=False)],
            columns=["user_id", "item_id"],
        ),
    }
    with without_graphs(but=TOWERS):
        run(parse(RunConfig, SETTINGS, where="page"), folder / "demo" / "models", frames=frames)
    return folder


@pytest.mark.slow
def test_commands_and_python_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    commands = [
        line for block in blocks("") for line in block.splitlines() if line.startswith("fm-recall")
    ]
    assert len(commands) == 4
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception}"
        assert "version 1" in result.output
    (snippet,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(snippet, PAGE.name, "exec"), names)
    assert len(names["importance"].samples) == 10 * N_USERS


def test_request_is_one() -> None:
    (request,) = blocks("json")
    assert TypeAdapter(ExplainQuery).validate_json(request).limit == 50
