"""The results as Markdown tables, and their place in a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers.processes import PeerError
from benchmarks.peers.results import Result
from benchmarks.peers.rows import TITLES
from serving.atomic import write_text_atomic

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"

Columns = Mapping[str, tuple[str, str]]
"""Columns of quality by title: the metric and the segment of each."""

QUALITY: Columns = {"recall@20": ("recall@20", "all"), "NDCG@20": ("ndcg@20", "all")}
"""Where every user that is measured has training interactions."""

QUALITY_BY_SEGMENT: Columns = {
    "warm users recall@20": ("recall@20", "warm_users"),
    "warm users NDCG@20": ("ndcg@20", "warm_users"),
    "cold users recall@20": ("recall@20", "cold_users"),
    "cold items recall@20": ("recall@20", "cold_items"),
}
"""Where some have none."""

LEGEND = (
    "Training is wall time of training alone; the whole run, CPU seconds (of all threads) and peak "
    "memory are of the whole process. `-`: the tool does not do it, or nothing is trained."
)

COST = ("training, s", "whole run, s", "CPU, s", "peak, GiB")

DATA_TITLES: Mapping[str, str] = {"gowalla": "Gowalla", "movielens-1m": "MovieLens 1M"}


def render_tables(results: Sequence[Result]) -> str:
    """Write one section a data set, with its rows in the order of `rows.TITLES`."""
    order = list(TITLES)
    sections = []
    for data in dict.fromkeys(result.data for result in results):
        rows = [result for result in results if result.data == data]
        rows.sort(key=lambda result: order.index(result.row))
        sections.append(f"### {DATA_TITLES.get(data, data)}\n\n{_table(rows)}")
    machines = "; ".join(dict.fromkeys(result.machine for result in results))
    return "\n\n".join([*sections, f"{LEGEND} Measured on: {machines}."])


def _table(rows: Sequence[Result]) -> str:
    """The table of one data set."""
    cold_users = rows[0].evaluation["segments"]["cold_users"]["n_users"]
    quality = QUALITY_BY_SEGMENT if cold_users else QUALITY
    header = ["", *quality, *COST, "version", "command"]
    lines = [header, ["---", *["---:"] * (len(quality) + len(COST)), "---", "---"]]
    for row in rows:
        figures = [_figure(row.figure(*place), digits=4) for place in quality.values()]
        versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
        command = f"`python -m benchmarks.peers --data {row.data} --row {row.row}`"
        lines.append([TITLES[row.row], *figures, *_cost(row), versions or "-", command])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cost(row: Result) -> list[str]:
    """The cells of what a row took."""
    cost = row.cost
    if cost is None:
        return ["-"] * len(COST)
    seconds = (cost.training_s, cost.run_s, cost.cpu_s)
    return [*(_figure(value, digits=1) for value in seconds), _figure(cost.peak_gib, digits=2)]


def _figure(value: float | None, *, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def write_table(page: Path, text: str) -> None:
    """Put `text` between the two markers of a Markdown page, in place of what is there.

    Raises:
        PeerError: the page is missing, or does not hold each marker once, in their order.
    """
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = old.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end or BEGIN in inside + after or END in before + after:
        raise PeerError(
            f"{page}: expected the lines {BEGIN} and {END}, once each and in this order, around "
            "the table; put them there"
        )
    write_text_atomic(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
