from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from pipelines.config import EvaluationConfig
from pipelines.evaluation.evaluate import Evaluation, evaluate, popularity_scorer
from pipelines.reporting.report import render, write_report
from pipelines.results import AnnSetting, Reason, Results, Round
from tests.without_graphs import without_plots

CONFIG = EvaluationConfig(k=(1, 3), metric="recall@3", cold_item_interactions=2)
HOSTILE = "<script>alert('x')</script>"


def evaluations(*, with_test: bool = True) -> tuple[Evaluation, Evaluation]:
    """Of made-up scores and of popularity, over users of whom two have no train interaction."""
    random = np.random.default_rng(5)
    train = random.random((20, 30)) < np.linspace(0.02, 0.5, 30)
    train[:2] = False
    test = scipy.sparse.csr_array((random.random((20, 30)) < 0.3 * with_test) & ~train)
    scores = random.standard_normal((20, 30)).astype(np.float32)
    popularity = popularity_scorer(train.sum(axis=0))
    seen = scipy.sparse.csr_array(train)
    return (
        evaluate(lambda rows: scores[rows], train=seen, test=test, config=CONFIG),
        evaluate(popularity, train=seen, test=test, config=CONFIG),
    )


def ann_settings() -> list[AnnSetting]:
    return [
        {
            "leaves_to_search": leaves,
            "leaves": 800,
            "reorder": 400,
            "recall": 1 - 1 / leaves,
            "cost_us": 0.7 * leaves,
            "chosen": leaves == 40,
        }
        for leaves in (80, 10, 40)
    ]


def make_results(
    *, name: str = "a run", with_test: bool = True, with_ann: bool = True, n_epochs: int = 3
) -> Results:
    model, baseline = evaluations(with_test=with_test)
    rounds: list[Round] = [
        {
            "round": number,
            "version": number + 7,
            "epochs": [
                {"epoch": epoch, "loss": 1 / epoch, "seconds": 2.0, "recall@3": 0.1 * epoch}
                for epoch in range(1, n_epochs + 1)
            ],
            "sampling": {"negatives": {"shares": {"uniform": 0.75, "mined": 0.25}}, "drawn": 12345},
            "evaluation": model.to_dict(),
            "ann": ann_settings() if with_ann else [],
            "index": ["u2i: recall 0.9612"] if with_ann else [],
            "lengths": {"item": {"shortest": 0.25, "longest": 1234.5}},
        }
        for number in range(2)
    ]
    return {
        "name": name,
        "created": "2025-01-31T12:00:00Z",
        "config": {"training.epochs": 14, "split.by": HOSTILE, "training.refit_on_all": True},
        "data": {"lines": [f"Split by {HOSTILE}."], "counts": {"users": 1234567}},
        "metric": "recall@3",
        "required_recall": 0.95,
        "rounds": rounds,
        "current_version": 8,
        "baseline": baseline.to_dict(),
        "timings": [{"stage": "read", "seconds": 1.25}, {"stage": "fit", "seconds": 60.5}],
    }


@pytest.fixture
def no_plots() -> Iterator[None]:
    """For what stands beside them."""
    with without_plots():
        yield


@cache
def whole_page() -> str:
    """The page of a run, drawn once for the tests that only read it."""
    return render(make_results())


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text outside of tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


NO_USERS = {"users_with_1_to_4", "users_with_20_or_more"}
"""Segments that none of these users belongs to."""


def test_every_segment_has_every_figure_of_every_evaluation() -> None:
    results, page = make_results(), whole_page()
    for title in ("All", "Warm users", "Cold users", "Warm items", "Cold items"):
        assert f"<summary>{title} <span>" in page
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall("<tr>.*?</tr>", page)]
    for name, segment in results["baseline"]["segments"].items():
        model = results["rounds"][0]["evaluation"]["segments"][name]
        if name not in NO_USERS:
            assert segment["n_users"] > 0
        for metric, value in segment["figures"].items():
            pattern = "{:,.1f}" if metric.startswith("popularity") else "{:.4f}"
            others = [pattern.format(model["figures"][metric])] * 2
            assert [pattern.format(value), *others] in cells


def test_shows_data_sampling_index_timings_and_settings() -> None:
    text = Page(whole_page()).text
    for expected in (
        "Version 8 is current",
        "1,234,567",
        "negatives.shares.mined 0.25",
        "drawn 12,345",
        "40 of 800 400 0.9750 28.0 yes",
        "Round 1: u2i: recall 0.9612",
        "round 1, items 0.25 1234",
        "all 61.8",
        "training.epochs 14",
        "training.refit_on_all true",
    ):
        assert expected in text


def test_five_plots_each_said_in_words() -> None:
    page = Page(whole_page())
    assert page.count("svg") == 5
    labels = page.values("aria-label")
    assert [label.partition(":")[0] for label in labels] == [
        "Recall@K",
        "Recall@3 by popularity",
        "Training loss by epoch",
        "Validation recall@3 by epoch",
        "ANN recall against cost",
    ]
    assert "round 1 from 1 at 1 to 0.3333 at 3" in labels[2]
    assert "round 0 from 0.9 at 7 to 0.9875 at 56" in labels[4]
    assert "required: 0.95" in page.text


def test_the_page_is_whole_in_itself() -> None:
    source = whole_page()
    page = Page(source)
    assert page.open == []  # every element is closed
    assert "http://" not in source and "https://" not in source
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = [link.removeprefix("#") for link in page.values("xlink:href")]
    used += re.findall(r"url\(#([^)]+)\)", source)
    assert used and set(used) <= set(ids)


@pytest.mark.usefixtures("no_plots")
def test_text_from_outside_is_escaped() -> None:
    results = make_results(name=HOSTILE)
    results["timings"][0]["stage"] = HOSTILE
    results["rounds"][0]["sampling"][HOSTILE] = 1
    page = Page(render(results))
    assert page.count("script") == 0
    assert page.text.count(HOSTILE) == 6  # title, heading, line, stage, sampling, setting


def test_an_exact_index_has_a_sentence_in_place_of_a_plot() -> None:
    page = Page(render(make_results(with_ann=False)))
    assert page.count("svg") == 4
    assert "there were no approximate settings to try" in page.text


def test_without_test_interactions_the_page_says_so() -> None:
    results = make_results(with_test=False, n_epochs=0)
    results["current_version"] = None
    page = Page(render(results))
    assert page.count("svg") == 1
    for expected in (
        "No version was published",
        "There were no test interactions",
        "No epoch was run",
        "No epoch was validated with recall@3",
        "No user has test items here",
    ):
        assert expected in page.text


@pytest.mark.usefixtures("no_plots")
def test_the_highest_figure_stands_out_but_popularity_does_not() -> None:
    results = make_results()
    for found, recall in zip(results["rounds"], (0.9, 0.8), strict=True):
        found["evaluation"]["segments"]["all"]["figures"] |= {"recall@3": recall}
    rows = re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', render(results))
    marked = [name for name, cells in rows if 'class="best"' in cells]
    assert marked.count("All") == 1  # in the summary
    assert '<td class="best">0.9000</td><td>0.8000</td>' in dict(rows)["All"]
    assert not [name for name in marked if name.startswith("popularity")]


def test_results_are_json_and_give_the_same_page_again() -> None:
    results = make_results()
    again = json.loads(json.dumps(results, allow_nan=False))
    assert render(again) == whole_page()


@pytest.mark.usefixtures("no_plots")
def test_writes_the_whole_page_or_none(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    results = make_results()
    whole = render(results)
    write_report(path, results)
    assert path.read_text(encoding="utf-8") == whole
    with pytest.raises(KeyError):
        write_report(path, {"name": "not a report"})
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(OSError, match=r"taken\.html"):
        write_report(tmp_path / "taken.html", results)
    assert path.read_text(encoding="utf-8") == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "taken.html"]


def described() -> Results:
    """Results with all that a report may tell besides."""
    results = make_results()
    results["data"]["counts"] = {"users": 20, "items": 30, "train": 70, "validation": 8, "test": 22}
    edges = np.linspace(1.6e9, 1.61e9, 5).tolist()
    parts = {"train": [40, 30, 0, 0], "validation": [0, 0, 8, 0], "test": [0, 0, 0, 22]}
    results["data"]["time_line"] = {"edges": edges, "parts": parts}
    results["config"]["item.features"] = [{"kind": "categorical", "column": "genre"}]
    reason: Reason = {"text": f"history: {HOSTILE} with genre: crime", "value": -0.25}
    results["rounds"][-1] |= {
        "samples": [
            {
                "user": 17,
                "past": ["Emma"],
                "n_past": 9,
                "items": [{"id": 4, "title": "Ulysses", "score": 1.5, "reasons": [reason]}],
            },
            {"user": 18, "past": [], "n_past": 0, "items": []},
        ],
        "index_costs": {
            "u2i": {
                "kind": "2 tree(s)",
                "recall": 0.961,
                "MiB of trees": 7.25,
                "MiB of SavedModel": 8,
            }
        },
        "changes": {
            "versions": [7, 8],
            "settings": {"model.embedding_dim": [64, 128]},
            "counts": {"users": [20, 21]},
            "figures": {},
            "lengths": {},
            "overlap": {"n_users": 200, "k": 20, "shared": 0.834, "first": 0.7, "equal": 0.1},
        },
    }
    results["promotion"] = {"version": 8, "promoted": True, "why": "it is better"}
    return results


def test_a_reader_in_a_hurry_sees_what_was_read_found_and_changed() -> None:
    results = described()
    html = render(results)
    text = Page(html).text
    assert "100 positive interactions of 20 users with 30 items; 22 of them are held out" in text
    assert "What is known of items: genre." in text
    figures = results["rounds"][-1]["evaluation"]["segments"]["cold_users"]["figures"]
    assert f"Cold users: recall@3 {figures['recall@3']:.4f}; popularity " in text
    assert "Version 8 became current: it is better." in text
    assert "2020-09-13" in text
    assert "Interactions by time: train 70; validation 8; test 22." in html
    assert "Of 200 users' best 20 items, 83% are in both lists; 70% of the users" in text
    assert "model.embedding_dim 64 128" in text
    assert "round 1, u2i 2 tree(s) 0.9610 7.2 8.0 28.0" in text


@pytest.mark.usefixtures("no_plots")
def test_sampled_answers_have_their_reasons_and_are_escaped() -> None:
    html = render(described())
    assert "9 items before, the latest: Emma" in html
    assert "Ulysses" in html
    assert "-0.250 history: &lt;script&gt;" in html
    assert HOSTILE not in html
    assert "Nothing is known of what the user chose before" in html


def test_what_is_not_known_has_no_section() -> None:
    text = Page(whole_page()).text
    assert "What changed" not in text
    assert "Some answers" not in text
    assert "time line" not in text
