"""The notebooks in examples/ run from top to bottom, and what they end cells with can be shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.without_graphs import TOWERS, without_graphs

EXAMPLES = Path(__file__).parents[2] / "examples"
IN_ORDER = ["train_and_query.ipynb", "explain_and_fresh.ipynb"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


@pytest.mark.slow
def test_notebooks_run_and_show_what_they_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.ipynb")) == sorted(IN_ORDER)
    monkeypatch.chdir(tmp_path)
    for name in IN_ORDER:
        names: dict[str, Any] = {}
        notebook = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] for cell in cells), "clear the outputs before committing"
        with without_graphs(but=TOWERS):
            found = [run_cell("".join(cell["source"]), names) for cell in cells]
        shown = [value._repr_html_() for value in found if hasattr(value, "_repr_html_")]
        assert len(shown) >= 5
        assert all("<table" in html for html in shown)
        if name == IN_ORDER[0]:
            assert "version 1 is current" in shown[1]
            assert names["results"]["current_version"] == 1
            assert len(names["hits"].to_frame()) == 9
        else:
            assert names["why"].to_frame()["value"].sum() == pytest.approx(names["why"].score)
            assert "is the sum of" in shown[0]
            assert "just-printed" not in names["retriever"].catalogue("item").published.ids.values
