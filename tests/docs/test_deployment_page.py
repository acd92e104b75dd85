"""What docs/deployment.md shows works: its links, and its clients on a server that is running."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.run import run
from tests.without_graphs import TOWERS, without_graphs
from towers.typed import parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deployment.md"
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
SERVE = "import sys; from pipelines.cli.main import main; sys.argv[1:] = {arguments!r}; main()"
SETTINGS = {
    "data": {"interactions": {}},
    "user": {"features": [{"kind": "history"}]},
    "item": {"features": [{"kind": "categorical", "column": "item_id"}]},
    "model": {"embedding_dim": 8},
    "training": {"epochs": 1, "rounds": 0, "refit_on_all": False},
    "index": {"kind": "exact"},
}


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    rest: str
    grpc: str


def blocks(language: str) -> list[str]:
    return [body for _, name, body in BLOCK.findall(PAGE.read_text("utf-8")) if name == language]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`fm-recall serve` with items 1 to 30, in a process of its own."""
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(60) for item in rng.choice(30, 8, replace=False) + 1]
    clicks = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    models = tmp_path_factory.mktemp("page") / "models"
    with without_graphs(but=(*TOWERS, "u2i")):
        run(parse(RunConfig, SETTINGS, where="page"), models, frames={"interactions": clicks})
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, other)]
    options = ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
    program = SERVE.format(arguments=["serve", str(models), *options])
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        try:
            yield ready(Server(f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"), process)
        finally:
            process.terminate()
            assert process.wait(30) == 0


def ready(server: Server, process: subprocess.Popen[bytes]) -> Server:
    """Wait until a version is served."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.rest}/readyz").status_code == 200:
                return server
        time.sleep(0.1)
    raise AssertionError(f"no server: {process.poll()}")


def answers(server: Server) -> list[Any]:
    """What the page's calls by curl answer."""
    found = []
    for command in blocks(""):
        for path, body in re.findall(r"curl http://localhost:8501(\S+) -d \\\n *'(.*)'", command):
            response = httpx.post(server.rest + path, content=body)
            assert response.status_code == 200, response.text
            found.append(response.json())
    return found


@pytest.mark.slow
def test_curl_gets_candidates_in_both_formats(server: Server) -> None:
    by_row, by_column = answers(server)
    [row] = by_row["predictions"]
    assert len(set(row["ids"])) == 10
    assert not {7, 9, 11} & set(row["ids"])
    assert by_column["outputs"]["ids"] == [row["ids"]]
    assert by_column["outputs"]["scores"] == [row["scores"]]


@pytest.mark.slow
def test_python_client_gets_the_same(server: Server) -> None:
    [snippet] = blocks("python")
    assert '"localhost:8500"' in snippet
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(snippet.replace("localhost:8500", server.grpc), "page", "exec"), names)
    assert names["answer"].model_spec.version.value == 1
    assert names["ids"].tolist() == answers(server)[1]["outputs"]["ids"]


@pytest.mark.slow
def test_addresses_that_the_page_asks_answer(server: Server) -> None:
    text = PAGE.read_text("utf-8")
    state = httpx.get(f"{server.rest}/v1/models/u2i").json()["model_version_status"]
    assert [(version["version"], version["state"]) for version in state] == [("1", "AVAILABLE")]
    metadata = httpx.get(f"{server.rest}/v1/models/u2i/metadata").json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"history", "k", "exclude"} == set(signatures["top_k"]["inputs"])
    for path in ("/v1/models/u2i`", "/v1/models/u2i/metadata`"):
        assert f"localhost:8501{path}" in text


def test_links_lead_somewhere() -> None:
    pages = [PAGE, ROOT / "deploy" / "README.md", ROOT / "docs/decisions/0010-k-of-each-query.md"]
    for page in pages:
        targets = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        assert targets
        assert [target for target in targets if not (page.parent / target).exists()] == []


def test_what_is_called_json_is() -> None:
    bodies = re.findall(r"'(\{.*\})'", PAGE.read_text("utf-8"))
    assert len(bodies) == 2
    for body in bodies:
        assert json.loads(body)["signature_name"] == "top_k"
