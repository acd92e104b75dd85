from __future__ import annotations

import re

import pytest

from pipelines.reporting.draw_svg import COLOURS, TEXT, Frame, Line, line_plot

LINES = [
    Line(label="round <0>", x=[1, 2, 3], y=[0.1, 0.4, 0.3], place=0, marked=[1]),
    Line(label="popularity", x=[1, 2, 3], y=[0.2, 0.2, 0.2], place=1, baseline=True),
]
FRAME = Frame(x_label="epoch", y_label="recall & more", bar=0.95)


def test_draws_one_svg_element_with_every_label() -> None:
    svg = line_plot(LINES, FRAME)
    assert svg.startswith("<svg") and svg.endswith("</svg>")
    for text in ("round &lt;0&gt;", "popularity", "epoch", "recall &amp; more", "required: 0.95"):
        assert f">{text}</text>" in svg


def test_text_takes_the_colour_of_the_page() -> None:
    svg = line_plot(LINES, FRAME)
    assert TEXT not in svg
    texts = re.findall(r"<text[^>]*>", svg)
    assert texts and all("currentColor" in text for text in texts)


def test_the_page_decides_the_size() -> None:
    opening = line_plot(LINES, FRAME).partition(">")[0]
    assert "viewBox" in opening
    assert "width" not in opening and "height" not in opening


def test_the_same_lines_give_the_same_text_and_links_to_nowhere() -> None:
    svg = line_plot(LINES, FRAME)
    assert svg == line_plot(LINES, FRAME)
    assert "http" not in svg and "<metadata" not in svg


def test_ids_of_two_plots_differ() -> None:
    other = Frame(x_label="K", y_label="recall & more")
    found = [set(re.findall(r'id="([^"]+)"', line_plot(LINES, f))) for f in (FRAME, other)]
    assert found[0] and found[1] and not found[0] & found[1]


def test_a_marked_point_has_a_ring_of_its_lines_colour() -> None:
    unmarked = Line(label="round <0>", x=[1, 2, 3], y=[0.1, 0.4, 0.3], place=0)
    count = [line_plot([line], FRAME).count(COLOURS[0]) for line in (unmarked, LINES[0])]
    assert count[1] > count[0]


@pytest.mark.parametrize(("whole", "fraction"), [(True, False), (False, True)])
def test_ticks_at_whole_numbers_only_where_asked_for(whole: bool, fraction: bool) -> None:
    line = Line(label="round 0", x=[1, 2], y=[0.25, 0.75], place=0)
    svg = line_plot([line], Frame(x_label="epoch", y_label="loss", x_whole=whole))
    ticks = re.findall(r"text-anchor: middle[^>]*>([\d.]+)</text>", svg)
    assert "2" in ticks or "2.0" in ticks
    assert any(float(tick) % 1 for tick in ticks) == fraction
