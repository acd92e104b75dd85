"""The documentation is a site: it builds without a warning, and loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
LOADED_BY_CSS = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")


class Loaded(HTMLParser):
    """What a browser loads for a page from other hosts; links to be followed do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            return
        self.found += [
            f"<{tag} {name}={value}>"
            for name, value in attrs
            if name in {"src", "href", "srcset", "data", "action", "poster"}
            and ELSEWHERE.match(value or "")
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    for page in pages:
        built = page.with_suffix(".html")
        if page.name == "README.md":
            built = page.with_name("index.html")
        assert (site / built).is_file()
        assert page == Path("index.md") or f'href="{built.as_posix()}"' in home, f"{page}: no link"


@pytest.mark.slow
def test_the_python_page_says_what_the_code_says(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in ("pipelines.run.run", "serving.retrieval.retriever.Retriever.retrieve"):
        assert f'id="{name}"' in text
    assert "Read, split, fit, mine, refit, evaluate, export and publish" in text


@pytest.mark.slow
def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    found: dict[str, list[str]] = {}
    for path in site.rglob("*.html"):
        page = Loaded()
        page.feed(path.read_text(encoding="utf-8"))
        found[path.name] = page.found
    for path in site.rglob("*.css"):
        found[path.name] = LOADED_BY_CSS.findall(path.read_text(encoding="utf-8"))
    assert {name: urls for name, urls in found.items() if urls} == {}
