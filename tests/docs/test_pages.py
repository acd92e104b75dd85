"""What the pages name is there: settings, metrics, and the TOML file of the tutorial."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pipelines.config import load_config
from serving.server.runtime.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
SECTION = re.compile(r"^## `\[(\w+(?:\.\w+)*)\]`$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NAMED = re.compile(
    r"`((?:training|evaluation|model|index|export|split)(?:\.negatives)?\.[a-z]\w*)\b"
)


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """The dotted names of all settings; tests/docs/test_reference.py holds the page to the code."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    return {
        f"{section}.{name}"
        for section, body in SECTION.findall(text)
        for name in re.findall(r"^\| `(\w+)`", body, re.MULTILINE)
    }


@pytest.mark.parametrize("page", ["settings.md", "faq.md", "fresh.md", "tutorial.md"])
def test_settings_that_a_page_names_are_there(page: str, settings: set[str]) -> None:
    named = set(NAMED.findall((DOCS / page).read_text(encoding="utf-8")))
    assert named or page == "tutorial.md"
    assert named <= settings


def test_metrics_that_the_page_names_are_there() -> None:
    metrics = Metrics()
    metrics.watch_queue(lambda: 0.0)
    metrics.watch_index(lambda direction: 0.0)
    there = set(re.findall(r"^# TYPE (\w+) ", metrics.text().decode(), re.MULTILINE))
    named = re.findall(r"\bfm_recall_\w+", (DOCS / "monitoring.md").read_text(encoding="utf-8"))
    assert named
    assert {name.removesuffix("_bucket") for name in named} <= there


def test_the_run_file_of_the_tutorial_can_be_loaded(tmp_path: Path) -> None:
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    run_file = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    path = tmp_path / "films.toml"
    path.write_text(run_file, encoding="utf-8")
    assert load_config(path).schema.history is not None
    assert tomllib.loads(run_file)["name"] == "films"
