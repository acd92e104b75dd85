"""What the tests of the explorer's page share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("playwright", reason="make test-browser installs it")
from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from serving.retrieval.retriever import Retriever

USER = 2**60
"""An id that JavaScript's numbers would round."""
ITEM = "物品 «5»"


def results(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Results")


def ids(listing: Locator) -> list[str]:
    expect(listing.get_by_role("option").first).to_be_visible()
    found: list[str] = listing.get_by_role("option").evaluate_all(
        "all => all.map(li => li.dataset.id)"
    )
    return found


def expected(retriever: Retriever, direction: str, **asked: Any) -> list[str]:
    given = {"k": 20, "exclude_seen": direction in {"u2i", "i2u"}, **asked}
    return [str(id) for id in retriever.retrieve(direction, **given).iloc[:, 0]]


def shows(listing: Locator, wanted: list[str]) -> None:
    """Wait until a list holds just these ids, in this order."""
    expect(listing.get_by_role("option")).to_have_count(len(wanted))
    for place in (0, -1):
        expect(listing.get_by_role("option").nth(place)).to_have_attribute("data-id", wanted[place])
    assert ids(listing) == wanted


def view(**state: Any) -> str:
    """The address of a view of the first user's items."""
    given = {"id": USER} | state
    parts = (
        f"{name}={value if name == 'direction' else quote(json.dumps(value))}"
        for name, value in given.items()
    )
    return f"#explore?{'&'.join(parts)}"


def number(text: str | None) -> float:
    return float((text or "").replace("\u2212", "-"))
