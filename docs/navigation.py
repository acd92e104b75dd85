"""A hook of MkDocs: pages that the navigation of mkdocs.yml does not name come at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent

DECISIONS = "Decisions"
"""The section of the pages of docs/decisions."""

MORE = "More"
"""The section of all other pages without a place."""


def on_config(config: Any) -> Any:
    """Give every page a place in the navigation, so that none is lost when it is written."""
    placed = set(_pages(config.nav))
    left = sorted(
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if path.relative_to(DOCS).as_posix() not in placed
    )
    decisions = [page for page in left if page.startswith("decisions/")]
    others = [page for page in left if page not in decisions]
    config.nav += [{MORE: others}] if others else []
    config.nav += [{DECISIONS: decisions}]
    return config


def _pages(part: Any) -> list[str]:
    """The pages that a part of the navigation names."""
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for inner in parts for page in _pages(inner)]
