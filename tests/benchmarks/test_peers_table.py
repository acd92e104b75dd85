from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.processes import PeerError
from benchmarks.peers.rows import POPULARITY, PRODUCT
from benchmarks.peers.table import BEGIN, END, render_tables, write_table
from tests.benchmarks.peers_support import result


def test_table_has_a_line_a_row_in_order() -> None:
    tools = [
        result(row=PRODUCT, versions={"fm-recall": "0.1.0", "tensorflow": "2.20.0"}),
        result(ranks_cold_users=False),
        result(row=POPULARITY, cost=None, versions={}),
    ]
    lines = render_tables(tools).splitlines()
    assert lines[0] == "### tiny"
    assert lines[2].startswith("|  | warm users recall@20 | warm users NDCG@20 | cold users")
    command = "python -m benchmarks.peers --data tiny --row"
    assert lines[4:7] == [
        "| popularity | 0.1235 | 0.2500 | 0.1235 | 0.1235 | - | - | - | - | - "
        f"| `{command} popularity` |",
        "| implicit ALS | 0.1235 | 0.2500 | - | 0.1235 | 1.3 | 2.0 | 3.0 | 0.13 "
        f"| implicit 0.7.3 | `{command} implicit-als` |",
        "| fm-recall (this product) | 0.1235 | 0.2500 | 0.1235 | 0.1235 | 1.3 | 2.0 | 3.0 | 0.13 "
        f"| fm-recall 0.1.0, tensorflow 2.20.0 | `{command} fm-recall` |",
    ]
    assert lines[-1].endswith("Measured on: a machine.")
    assert len({line.count("|") for line in lines[2:7]}) == 1


def test_table_without_cold_users_has_no_columns_of_segments() -> None:
    evaluation = result().evaluation
    segments = evaluation["segments"] | {"cold_users": {"n_users": 0, "figures": {}}}
    lines = render_tables([result(evaluation={"segments": segments})]).splitlines()
    assert lines[2].startswith("|  | recall@20 | NDCG@20 | training, s | whole run, s | CPU, s |")


def test_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n", encoding="utf-8")
    write_table(page, "old")
    write_table(page, "new")
    text = page.read_text(encoding="utf-8")
    assert text == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize(
    "text", [None, "", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_page_without_the_two_markers_is_left_alone(text: str | None, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text, encoding="utf-8")
    with pytest.raises(PeerError, match=r"page\.md: expected the lines"):
        write_table(page, "new")
    assert (page.read_text(encoding="utf-8") if page.exists() else None) == text
