"""The explorer's page by keyboard, narrow, dark, and in trouble."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import HOSTILE

pytest.importorskip("playwright", reason="make test-browser installs it")
from playwright.sync_api import Page, Route, expect

from tests.browser.page_support import USER, expected, results, shows, view

if TYPE_CHECKING:
    from serving.retrieval.retriever import Retriever

pytestmark = pytest.mark.browser


def test_everything_is_reached_by_keyboard(page: Page, retriever: Retriever) -> None:
    page.goto("")
    expect(page.get_by_role("heading", name="Choose a user")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(4):  # the direction, Known, New, the search
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    expect(page.get_by_role("combobox", name="Search users")).to_be_focused()
    page.keyboard.type(str(USER))
    expect(page.get_by_role("option", name=f"User {USER}")).to_have_attribute(
        "aria-selected", "true"
    )
    page.keyboard.press("Enter")
    wanted = expected(retriever, "u2i", id=USER)
    shows(results(page), wanted)
    for _ in range(20):
        page.keyboard.press("Tab")
        if results(page).evaluate("one => one === document.activeElement"):
            break
    expect(results(page)).to_be_focused()
    chosen = results(page).locator('[aria-selected="true"]')
    for key, place in (
        ("ArrowDown", 0),
        ("ArrowDown", 1),
        ("End", 19),
        ("ArrowUp", 18),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        expect(chosen).to_have_attribute("data-id", wanted[place])
        option = str(chosen.get_attribute("id"))
        expect(results(page)).to_have_attribute("aria-activedescendant", option)
    title = page.get_by_label("Chosen result").get_by_role("heading").first
    expect(title).to_have_text(
        retriever.catalogue("item").show(retriever.catalogue("item").rows([wanted[0]]))["title"][0]
    )
    page.keyboard.press("Enter")
    expect(title).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Similar items")).to_be_focused()
    page.keyboard.press("Escape")
    expect(results(page)).to_be_focused()


@pytest.mark.parametrize(
    "start", ["", view(), view(where={"column": "year", "range": {"gte": 1}}), "#versions"]
)
def test_a_narrow_window_needs_no_scrolling_sideways(page: Page, start: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    width = "document.documentElement.scrollWidth"
    page.goto(start)
    expect(page.locator(".blank, .listing li, tbody tr").first).to_be_visible()
    assert page.evaluate(width) == 360
    if start.startswith("#explore"):
        page.goto(start.replace("explore", "compare"))
        expect(page.get_by_label("What changed")).to_be_visible()
        assert page.evaluate(width) == 360


def test_on_a_narrow_window_the_details_cover_the_list(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(view())
    detail = page.get_by_label("Chosen result")
    expect(results(page)).to_be_visible()
    expect(detail).to_be_hidden()
    results(page).get_by_role("option").nth(3).click()
    expect(detail.locator(".bars li").first).to_be_visible()
    box = detail.bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    detail.get_by_role("button", name="Close").click()
    expect(detail).to_be_hidden()
    expect(results(page)).to_be_focused()


CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (!color.endsWith(", 0)") && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility()
    && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
    && !element.closest(".unseen, .skip, button:disabled, option"));
  return texts.map((element) => {
    const pair = [light(getComputedStyle(element).color), light(ground(element))];
    return [element.className || element.tagName,
      (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(view())
    results(page).get_by_role("option").first.click()
    expect(page.locator(".bars li").first).to_be_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", ground)[:3])) > 380
    assert bright == (scheme == "light")
    found = page.evaluate(CONTRAST)
    assert len(found) > 60
    assert [pair for pair in found if pair[1] < 4.5] == []


def test_what_tables_hold_is_text(page: Page) -> None:
    page.goto("#explore?direction=i2i")
    page.get_by_role("combobox", name="Search items").fill("<img")
    page.get_by_role("option", name="<img").click()
    expect(page.locator(".card h3")).to_have_text(HOSTILE)
    expect(page.get_by_role("heading", name=f"Items like {HOSTILE}")).to_be_visible()
    expect(page.get_by_role("option").first).to_be_visible()
    assert page.locator("main img").count() == 0
    assert "hacked" not in page.title()


def test_an_error_is_in_the_servers_words(page: Page) -> None:
    page.goto(view(id=7))
    expect(page.get_by_role("alert")).to_contain_text("user_id: version 2 has no user 7")
    page.goto(view(where={"column": "nothing", "equals": 1}))
    expect(page.get_by_role("alert").filter(has_text="expected some of")).to_be_visible()


def test_when_the_server_does_not_answer_one_can_try_again(
    page: Page, retriever: Retriever
) -> None:
    page.goto("")
    expect(page.get_by_role("heading", name="Choose a user")).to_be_visible()
    page.route("**/v1/retrieve/*", lambda route: route.abort())
    page.goto(view())
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/v1/retrieve/*")
    page.get_by_role("button", name="Try again").click()
    shows(results(page), expected(retriever, "u2i", id=USER))


def test_before_a_version_is_loaded_the_page_says_so(page: Page) -> None:
    error = {"error": {"code": "INTERNAL", "message": "the disk is full"}}
    page.route("**/v1/explorer/schema", lambda route: route.fulfill(status=500, json=error))
    page.goto("")
    expect(page.get_by_role("alert")).to_contain_text("the disk is full")
    page.unroute("**/v1/explorer/schema")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Choose a user")).to_be_visible()


def test_nothing_found_says_why(page: Page) -> None:
    page.goto(view(where={"column": "year", "range": {"gte": 10_000}}))
    expect(page.get_by_role("heading", name="No items match")).to_be_visible()
    expect(page.get_by_text("The filter may be too narrow")).to_be_visible()
    page.goto(view(min_score=1e6))
    expect(page.get_by_text("No score reaches the minimum")).to_be_visible()


def test_what_takes_long_is_shown_to_be_on_its_way(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/retrieve/*", hold)
    page.goto(view())
    expect(page.get_by_text("Searching…")).to_be_visible()
    held[0].continue_()
    expect(results(page).get_by_role("option").first).to_be_visible()
    expect(page.get_by_text("Searching…")).to_be_hidden()


def test_a_server_that_does_not_explain(page: Page) -> None:
    error = {"error": {"code": "NOT_FOUND", "message": "Not Found: POST /v1/explain; see /docs"}}
    page.route("**/v1/explain", lambda route: route.fulfill(status=404, json=error))
    page.goto(view())
    results(page).get_by_role("option").first.click()
    expect(page.get_by_text("This server does not explain scores")).to_be_visible()


def test_a_long_list_does_not_freeze_the_page(page: Page) -> None:
    rows = [
        {"id": n, "score": 1 - n / 9000, "columns": {"title": f"Film {n}"}} for n in range(5000)
    ]
    answer = {"version": 2, "direction": "u2i", "results": rows, "applied": {}}
    page.route("**/v1/retrieve/*", lambda route: route.fulfill(json=answer))
    page.goto("")
    page.evaluate(
        "window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((task) =>"
        " { window.longest = Math.max(window.longest, task.duration); })).observe("
        "{ type: 'longtask', buffered: true });"
    )
    page.goto(view())
    expect(results(page).get_by_role("option")).to_have_count(5000)
    results(page).focus()
    page.keyboard.press("End")
    expect(results(page).locator('[aria-selected="true"]')).to_have_text(re.compile("Film 4999"))
    expect(results(page).locator('[aria-selected="true"]')).to_be_in_viewport()
    assert page.evaluate("window.longest") < 1000


def test_a_new_version_is_noticed(page: Page) -> None:
    page.goto(view())
    expect(results(page).get_by_role("option").first).to_be_visible()

    def as_version_9(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "version": 9})

    page.route("**/v1/retrieve/*", as_version_9)
    page.route("**/v1/explorer/schema", as_version_9)
    page.get_by_role("spinbutton", name="Results").fill("9")
    expect(page.get_by_text("version 9", exact=True)).to_be_visible()
    expect(results(page).get_by_role("option")).to_have_count(9)
