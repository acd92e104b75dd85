"""The explorer's page: what one does with it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.e2e.conftest import Published

pytest.importorskip("playwright", reason="make test-browser installs it")
from playwright.sync_api import Page, expect

from tests.browser.page_support import ITEM, USER, expected, number, results, shows, view

if TYPE_CHECKING:
    from serving.retrieval.retriever import Retriever

pytestmark = pytest.mark.browser


def test_a_search_leads_to_recommendations(page: Page, retriever: Retriever) -> None:
    page.goto("")
    expect(page.get_by_role("heading", name="Choose a user")).to_be_visible()
    search = page.get_by_role("combobox", name="Search users")
    search.fill(str(USER))
    page.get_by_role("option", name=f"User {USER}").click()
    shows(results(page), expected(retriever, "u2i", id=USER))
    expect(page.get_by_role("heading", name=f"Items for user {USER}")).to_be_visible()
    first = results(page).get_by_role("option").first
    hit = retriever.retrieve("u2i", id=USER, k=1, exclude_seen=True).iloc[0]
    expect(first.locator(".name")).to_have_text(hit["item.title"])
    assert number(first.locator(".score").inner_text()) == pytest.approx(hit["score"], abs=1e-4)
    expect(first).to_contain_text("genres")  # a column that each item has
    expect(page.get_by_role("status").filter(has_text="20 items found")).to_be_attached()


def test_a_search_by_text_and_one_that_finds_nothing(page: Page) -> None:
    page.goto("#explore?direction=i2i")
    search = page.get_by_role("combobox", name="Search items")
    search.fill("title 11")
    found = page.get_by_role("listbox", name="Search items").get_by_role("option")
    expect(found.first).to_contain_text("Title 11")
    assert found.count() == 11  # 11 and 110 to 119
    search.fill("nobody is called so")
    expect(page.get_by_text("No item matches “nobody is called so”.")).to_be_visible()
    search.press("Escape")
    expect(page.get_by_text("No item matches")).to_be_hidden()


def test_the_parts_of_an_explanation_are_bars_that_sum_to_the_score(page: Page) -> None:
    page.goto(view())
    results(page).get_by_role("option").nth(2).click()
    why = page.get_by_role("region", name="Explanation")
    score = number(results(page).get_by_role("option").nth(2).locator(".score").inner_text())
    expect(why.locator(".bars li").first).to_be_visible()
    assert number(why.locator(".total strong").inner_text()) == pytest.approx(score, abs=2e-4)
    for grouped in ("By field", "By part"):
        why.get_by_role("button", name=grouped).click()
        bars = why.locator(".bars li")
        values = [number(text) for text in bars.locator(".value").all_inner_texts()]
        assert len(values) > 3
        assert sum(values) == pytest.approx(score, abs=1e-3)
        sides = bars.locator(".track span").evaluate_all(
            "all => all.map(one => { const bar = one.getBoundingClientRect();"
            " const track = one.parentElement.getBoundingClientRect();"
            " return [(bar.left + bar.right) / 2 - (track.left + track.right) / 2, bar.width]; })"
        )
        for value, (place, width) in zip(values, sides, strict=True):
            assert width == 0 or np.sign(place) == np.sign(value)
    widths = [width for _, width in sides]
    assert max(widths) == pytest.approx(widths[int(np.argmax(np.abs(values)))])


def test_a_new_user_is_served_from_features_and_items(page: Page, retriever: Retriever) -> None:
    page.goto("")
    page.get_by_role("group").get_by_role("button", name="New").click()
    features: dict[str, Any] = {"city": "Zürich 1", "age": 31.0, "history": [ITEM]}
    page.get_by_label("city").fill("Zürich 1")
    page.get_by_label("age", exact=True).fill("31")
    picker = page.get_by_role("combobox", name="Add an item to the history")
    picker.fill("Title 5")
    found = page.get_by_role("listbox", name="Add an item").get_by_role("option")
    expect(found).to_have_count(11)  # 5 and 50 to 59
    found.first.click()
    expect(page.get_by_role("list", name="history")).to_contain_text("Title 5")
    shows(results(page), expected(retriever, "u2i", features=features))
    expect(page.get_by_role("heading", name="Items for a new user")).to_be_visible()
    interests = page.get_by_role("combobox", name="interests")
    interests.fill("弦楽 1")
    features["interests"] = ["弦楽 1"]
    interests.press("Enter")
    shows(results(page), expected(retriever, "u2i", features=features))
    page.get_by_role("button", name="Remove Title 5").click()
    del features["history"]
    shows(results(page), expected(retriever, "u2i", features=features))
    page.get_by_label("age", exact=True).fill("old")
    expect(page.get_by_label("age", exact=True)).to_have_attribute("aria-invalid", "true")


def test_a_known_user_is_edited_as_a_new_one(page: Page, retriever: Retriever) -> None:
    page.goto(view())
    page.get_by_text("History", exact=True).click()
    past = page.locator(".past li")
    seen = retriever.parts.seen.of("user", 0)
    expect(past).to_have_count(len(seen))
    page.get_by_role("button", name="Edit as a new user").click()
    expect(page.get_by_role("list", name="history").get_by_role("listitem")).to_have_count(
        len(seen)
    )
    expect(page.get_by_role("heading", name="Items for a new user")).to_be_visible()


def test_from_a_result_to_those_like_it_and_its_users(page: Page, retriever: Retriever) -> None:
    page.goto(view())
    item = expected(retriever, "u2i", id=USER)[0]
    results(page).get_by_role("option").first.click()
    page.get_by_role("button", name="Similar items").click()
    shows(results(page), expected(retriever, "i2i", id=item))
    results(page).get_by_role("option").first.click()
    expect(page.get_by_role("region", name="Explanation").locator(".bars li").first).to_be_visible()
    like = expected(retriever, "i2i", id=item)[0]
    page.get_by_role("button", name="Users for it").click()
    shows(results(page), expected(retriever, "i2u", id=like))
    results(page).get_by_role("option").nth(1).click()
    user = int(expected(retriever, "i2u", id=like)[1])
    page.get_by_role("button", name="Similar users").click()
    shows(results(page), expected(retriever, "u2u", id=user))
    page.go_back()
    shows(results(page), expected(retriever, "i2u", id=like))
    results(page).get_by_role("option").nth(1).click()
    page.get_by_role("button", name="Items for them").click()
    shows(results(page), expected(retriever, "u2i", id=user))
    results(page).get_by_role("option").nth(1).click()
    page.get_by_role("button", name="New user who liked it").click()
    liked = expected(retriever, "u2i", id=user)[1]
    shows(results(page), expected(retriever, "u2i", features={"history": [liked]}))


def test_how_many_and_which_are_found(page: Page, retriever: Retriever) -> None:
    page.goto(view())
    page.get_by_role("spinbutton", name="Results").fill("7")
    shows(results(page), expected(retriever, "u2i", id=USER, k=7))
    page.get_by_label("Exclude seen").uncheck()
    shows(results(page), expected(retriever, "u2i", id=USER, k=7, exclude_seen=False))
    best = expected(retriever, "u2i", id=USER, k=7, exclude_seen=False)[0]
    results(page).get_by_role("option").first.click()
    page.get_by_role("button", name="Exclude", exact=True).click()
    wanted = expected(retriever, "u2i", id=USER, k=7, exclude_seen=False, exclude=[best])
    shows(results(page), wanted)
    page.get_by_role("list", name="Excluded").get_by_role("button").click()
    shows(results(page), expected(retriever, "u2i", id=USER, k=7, exclude_seen=False))
    scores = retriever.retrieve("u2i", id=USER, k=7)["score"]
    least = float(scores.iloc[2:4].mean())
    page.get_by_label("Minimum score").fill(str(least))
    expect(results(page).get_by_role("option")).to_have_count(3)
    page.get_by_role("spinbutton", name="Results").fill("100000")
    expect(page.get_by_role("spinbutton", name="Results")).to_have_attribute("aria-invalid", "true")


def test_a_filter_is_built_of_conditions(page: Page, retriever: Retriever) -> None:
    page.goto(view())
    page.get_by_text("Filter", exact=True).click()
    page.get_by_role("button", name="Add a condition").click()
    first = page.get_by_role("group", name=re.compile("^Condition")).nth(0)
    first.get_by_label("Column").select_option("year")
    first.get_by_label("Test").select_option("between")
    first.get_by_label("Value", exact=True).fill("30")
    first.get_by_label("Largest value").fill("45")
    years = {"column": "year", "range": {"gte": 30, "lte": 45}}
    shows(results(page), expected(retriever, "u2i", id=USER, where=years))
    page.get_by_role("button", name="Add a condition").click()
    second = page.get_by_role("group", name=re.compile("^Condition")).nth(1)
    second.get_by_label("Column").select_option("genres")
    second.get_by_label("Test").select_option("isNot")
    second.get_by_label("Value", exact=True).fill("comédie 1")
    genres = {"not": {"column": "genres", "equals": "comédie 1"}}
    shows(results(page), expected(retriever, "u2i", id=USER, where={"and": [years, genres]}))
    page.get_by_label("How conditions are joined").select_option("or")
    either: dict[str, Any] = {"or": [years, genres]}
    shows(results(page), expected(retriever, "u2i", id=USER, where=either))
    page.reload()
    shows(results(page), expected(retriever, "u2i", id=USER, where=either))
    page.get_by_role("button", name="Edit as JSON").click()
    nested = {"not": either}
    page.get_by_label("Filter as JSON").fill(json.dumps(nested))
    shows(results(page), expected(retriever, "u2i", id=USER, where=nested))
    page.get_by_label("Filter as JSON").fill("{")
    expect(page.get_by_text("This is no JSON")).to_be_visible()


def test_two_versions_side_by_side(page: Page, published: Published) -> None:
    page.goto(view().replace("explore", "compare"))
    lists = [
        page.get_by_role("listbox", name=f"The {which}") for which in ("version that", "other")
    ]
    wanted = [expected(published.open(version), "u2i", id=USER) for version in (2, 1)]
    for listing, items in zip(lists, wanted, strict=True):
        shows(listing, items)
    both = set(wanted[0]) & set(wanted[1])
    figures = page.get_by_label("What changed")
    expect(figures).to_contain_text(f"{len(both)} of 20")
    for place, item in enumerate(wanted[0]):
        change = lists[0].get_by_role("option").nth(place).locator(".change")
        if item not in both:
            expect(change).to_contain_text("new")
        elif place != wanted[1].index(item):
            expect(change).to_have_text(re.compile(f"[▲▼]{abs(wanted[1].index(item) - place)}$"))
    here = next(item for item in wanted[0] if item in both)
    lists[0].get_by_role("option").nth(wanted[0].index(here)).click()
    for listing in lists:
        expect(listing.locator('[aria-selected="true"]')).to_have_attribute("data-id", here)


def test_versions_have_their_figures_and_reports(page: Page, published: Published) -> None:
    page.goto("#versions")
    table = page.get_by_role("region", name="Figures of versions").get_by_role("table")
    expect(table.get_by_role("row")).to_have_count(3)
    metrics = published.open(2).bundle.manifest.metrics["segments"]["all"]["figures"]
    row = table.get_by_role("row").filter(has_text="answers")
    expect(row).to_contain_text("Version 2")
    expect(row).to_contain_text(f"{metrics['recall@10']:.4f}")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Summary")).to_be_visible()
    table.get_by_role("button", name="Version 1").click()
    expect(page.get_by_role("heading", name="Report of version 1")).to_be_visible()
    expect(frame.get_by_text("Run report")).to_be_visible()


def test_a_view_is_its_address(page: Page, retriever: Retriever) -> None:
    page.goto(view(k=5))
    results(page).get_by_role("option").nth(1).click()
    chosen = expected(retriever, "u2i", id=USER, k=5)[1]
    expect(page.get_by_label("Chosen result").get_by_text(chosen)).to_be_visible()
    other = page.context.new_page()
    other.goto(page.url)
    shows(results(other), expected(retriever, "u2i", id=USER, k=5))
    expect(results(other).locator('[aria-selected="true"]')).to_have_attribute("data-id", chosen)
    expect(other.get_by_label("Chosen result").get_by_text(chosen)).to_be_visible()


def test_a_broken_address_is_no_error(page: Page) -> None:
    page.goto("#explore?k=-1&id=%7B&where=[1]&direction=x&min_score=%22a%22&nothing=1")
    expect(page.get_by_role("heading", name="Choose a user")).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Results")).to_have_value("20")
