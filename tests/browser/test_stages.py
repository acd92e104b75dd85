"""The explorer's page of a version with a ranker: both orders side by side, and both reasons."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.rank_config import RankConfig
from pipelines.ranking.rank import rank
from serving.retrieval.retriever import Retriever
from tests.e2e.conftest import Published

pytest.importorskip("playwright", reason="make test-browser installs it")
from playwright.sync_api import expect

from tests.browser.conftest import serving
from tests.browser.page_support import USER, number, shows, view
from towers.ranking.settings import RankerSettings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def ranked(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    """The same model with a ranker."""
    models = tmp_path_factory.mktemp("ranked") / "models"
    shutil.copytree(published.root, models, symlinks=True)
    settings = RankConfig(
        model=RankerSettings(kind="afm", embedding_dim=4), candidates=50, epochs=3
    )
    config = dataclasses.replace(published.config, rank=settings)
    rank(config, models, frames=published.frames, promote="always")
    return Retriever.open(models)


@pytest.fixture(scope="module")
def address(ranked: Retriever, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models: Path = ranked.bundle.path.parents[1]
    with serving(models, log=tmp_path_factory.mktemp("server") / "log") as found:
        yield found


def test_both_orders_stand_side_by_side(page: Page, ranked: Retriever) -> None:
    page.goto(view(k=10))
    page.get_by_role("link", name="Two stages").click()
    recalled = page.get_by_role("listbox", name="By recall")
    shows(
        recalled, [str(id) for id in ranked.retrieve("u2i", id=USER, k=10, exclude_seen=True)["id"]]
    )
    expected = ranked.recommend(id=USER, k=10, exclude_seen=True)
    second = page.get_by_role("listbox", name="By the ranker")
    shows(second, [str(id) for id in expected["id"]])
    expect(page.get_by_role("heading", name="By the ranker (afm)")).to_be_visible()
    for place, before in enumerate(expected["recall_rank"]):
        change = second.get_by_role("option").nth(place).locator(".change")
        expect(change).to_have_attribute("title", f"rank {before} by recall")
    inside = sum(before <= 10 for before in expected["recall_rank"])
    assert recalled.locator(".change.same").count() == inside
    assert recalled.locator(".change.gone").count() == 10 - inside


def test_the_ranker_says_why(page: Page, ranked: Retriever) -> None:
    page.goto(view(k=10).replace("#explore", "#stages"))
    second = page.get_by_role("listbox", name="By the ranker")
    second.get_by_role("option").first.click()
    why = page.get_by_role("region", name="Explanation of the ranker")
    expect(why.locator(".bars li").first).to_be_visible()
    score = ranked.recommend(id=USER, k=1, exclude_seen=True)["score"].iloc[0]
    assert number(why.locator(".total strong").inner_text()) == pytest.approx(score, abs=2e-4)
    values = [number(text) for text in why.locator(".bars .value").all_inner_texts()]
    assert sum(values) == pytest.approx(score, abs=1e-2)
    expect(why).to_contain_text("of the attention")
    page.get_by_role("radio", name="Items like an item").check()
    expect(page.get_by_role("heading", name="The ranker orders items for users")).to_be_visible()
    expect(why).to_be_hidden()
