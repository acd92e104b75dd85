"""The example dashboard and alerts ask for figures that a server has."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.server.api_support import running_api

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "deploy" / "monitoring"
FRESH = {"item_id": "fresh", "genres": ["x"], "price": 1.0, "title": "Fresh"}


@pytest.fixture(scope="module")
def figures(
    published: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, float]]:
    """The names of all figures, as expressions have them; with the values of those without
    labels."""
    with running_api(published, journal=tmp_path_factory.mktemp("journal")) as api:
        api.post("/v1/items", {"items": [FRESH]})
        families = list(text_string_to_metric_families(api.get("/metrics").text))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    names = {
        family.name + suffix: float("nan")
        for family in families
        for suffix in suffixes.get(family.type, [""])
    }
    plain = {x.name: x.value for family in families for x in family.samples if not x.labels}
    yield names | plain


def asked(expressions: list[str]) -> set[str]:
    names = re.findall(r"\b(?:fm_recall|process)_[a-z_]+", " ".join(expressions))
    assert len(names) >= len(expressions)
    return set(names)


def test_the_dashboard_asks_for_figures_that_there_are(figures: dict[str, float]) -> None:
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    assert asked([target["expr"] for target in targets]) <= figures.keys()
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places) >= 8


def test_each_alert_asks_for_figures_that_there_are_and_has_a_page_to_turn_to(
    figures: dict[str, float],
) -> None:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    assert asked([rule["expr"] for rule in group["rules"]]) <= figures.keys()
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    for rule in group["rules"]:
        assert rule["alert"] in runbook, rule["alert"]
        assert rule["annotations"]["summary"].endswith(".")


def test_the_ages_of_the_version_and_of_the_journal_are_figures(figures: dict[str, float]) -> None:
    assert 0 < figures["fm_recall_version_created_seconds"] <= time.time()
    assert time.time() - 3600 < figures["fm_recall_journal_changed_seconds"] <= time.time()
    assert figures["fm_recall_journal_entries"] == 1
