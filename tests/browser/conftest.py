"""A server on a small model, and a page of it in a headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.config import IndexConfig
from serving.version.store import Store
from tests.e2e.conftest import Published, make_config, make_frames, publish

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from serving.retrieval.retriever import Retriever

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"> & 'more'"
"""The title of the first item."""

SERVE = "import sys; from pipelines.cli.main import main; sys.argv[1:] = {arguments!r}; main()"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Two versions of a model of users whose ids are beyond 2**53; the second is current."""
    frames = make_frames(n_users=50, n_items=120, n_interactions=700, seed=3)
    frames["items"].loc[0, "title"] = HOSTILE
    root = tmp_path_factory.mktemp("models")
    found = publish(root, make_config(index=IndexConfig(kind="exact"), rounds=1), frames)
    Store(root).activate(2)
    return found


@pytest.fixture(scope="session")
def address(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server's page is."""
    with serving(published.root, log=tmp_path_factory.mktemp("server") / "log") as found:
        yield found


@contextmanager
def serving(models: Path, *, log: Path) -> Iterator[str]:
    """Serve a models directory; the address of its page."""
    arguments = ["serve", str(models), "--port", "0", "--grpc-port", "0"]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(arguments=arguments)],
            stderr=file,
            env={**os.environ, "PYTHONPATH": "."},
        )
    try:
        yield f"{_wait_for_address(server, log)}/"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium that is installed."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not there in other tests

    path = shutil.which("chromium")
    if path is None:
        pytest.fail("there is no command chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """An empty page; whatever is wrong in it, or asked of another host, fails the test."""
    context = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("request", lambda one: None if one.url.startswith(address) else errors.append(one.url))
    yield page
    context.close()
    known = re.compile(r"^Failed to load resource: (the server responded with|net::ERR_FAILED)")
    assert [error for error in errors if not known.match(error)] == []


def _wait_for_address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Read from the log where the server listens, once its version is loaded."""
    while server.poll() is None:
        text = log.read_text(encoding="utf-8")
        found = re.search(r'"rest": "([^"]+)"', text)
        if found and "version swapped in" in text:
            return found[1]
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    pytest.fail(log.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def retriever(published: Published) -> Retriever:
    return published.open()
