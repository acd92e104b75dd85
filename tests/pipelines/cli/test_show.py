from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipelines.cli.show_figures import show_results
from pipelines.cli.show_hits import hits_as_json, show_hits
from pipelines.cli.show_next import show_next
from pipelines.cli.show_versions import show_versions
from pipelines.results import Results
from serving.version.store import Store
from towers.errors import QueryError


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def lines(console: Console) -> list[str]:
    """What was printed, without spaces at the ends and empty lines."""
    assert isinstance(console.file, io.StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines() if line.strip()]


def row(console: Console, start: str) -> list[str]:
    """The cells of the first row that begins with `start`."""
    found = next(line for line in lines(console) if line.startswith(start))
    return found.removeprefix(start).split()


@pytest.fixture
def hits() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["é [b]", "c"],
            "score": np.array([1.23456, -0.5], dtype=np.float32),
            "item.title": ["Die Räuber", "[/b] 2"],
            "item.year": [1781.0, np.nan],
            "item.tags": [np.array(["x", "y"], dtype=object), np.array([], dtype=object)],
        }
    )


def test_results_show_every_round_beside_popularity(
    console: Console, published: tuple[Path, Results]
) -> None:
    results = published[1]
    show_results(console, results)
    assert lines(console)[0] == "Test figures at 5"
    for start, evaluation in (
        ("popularity", results["baseline"]),
        ("round 0 (v1)", results["rounds"][0]["evaluation"]),
        ("round 1 (v2)", results["rounds"][1]["evaluation"]),
    ):
        figures = evaluation["segments"]["all"]["figures"]
        shown = [float(cell) for cell in row(console, start)]
        names = ("recall", "ndcg", "hit_rate", "mrr", "coverage", "popularity")
        expected = [figures[f"{name}@5"] for name in names]
        np.testing.assert_allclose(shown, expected, atol=0.05, rtol=1e-3)
        assert shown[0] == pytest.approx(expected[0], abs=5e-5)
    n_users = results["baseline"]["segments"]["all"]["n_users"]
    assert f"all ({n_users})" in lines(console)


def test_results_without_test_interactions_are_shown_without_figures(
    console: Console, published: tuple[Path, Results]
) -> None:
    plain: Any = json.loads(json.dumps(published[1]))
    for evaluation in (plain["baseline"], *(found["evaluation"] for found in plain["rounds"])):
        for segment in evaluation["segments"].values():
            segment.update(n_users=0, n_positives=0, figures={})
    show_results(console, plain)
    assert not any(character.isdigit() for line in lines(console)[1:] for character in line)


def test_hits_are_shown_by_rank_with_the_columns_asked_for(
    console: Console, hits: pd.DataFrame
) -> None:
    show_hits(console, hits, title="u2i, version 3", show=["year", "title"])
    assert lines(console)[0] == "u2i, version 3"
    assert lines(console)[1].split() == ["rank", "id", "score", "item.year", "item.title"]
    assert row(console, "1 ") == ["é", "[b]", "1.2346", "1781", "Die", "Räuber"]
    assert row(console, "2 ") == ["c", "-0.5000", "nan", "[/b]", "2"]


def test_hits_without_a_choice_have_every_column(console: Console, hits: pd.DataFrame) -> None:
    show_hits(console, hits, title="all", show=None)
    columns = ["item.title", "item.year", "item.tags"]
    assert lines(console)[1].split() == ["rank", "id", "score", *columns]
    assert row(console, "1 ")[-2:] == ["x,", "y"]


def test_no_hits_are_shown_as_a_table_without_rows(console: Console, hits: pd.DataFrame) -> None:
    show_hits(console, hits.iloc[:0], title="nothing", show=[])
    assert lines(console)[1].split() == ["rank", "id", "score"]
    assert json.loads(hits_as_json(hits.iloc[:0], show=["tags"])) == []


def test_hits_as_json_are_plain(hits: pd.DataFrame) -> None:
    found = json.loads(hits_as_json(hits, show=["tags", "year"]))
    assert found == [
        {
            "rank": 1,
            "id": "é [b]",
            "score": pytest.approx(1.23456, abs=1e-6),
            "columns": {"tags": ["x", "y"], "year": 1781.0},
        },
        {"rank": 2, "id": "c", "score": -0.5, "columns": {"tags": [], "year": None}},
    ]


def test_integers_beyond_doubles_stay_whole_in_json() -> None:
    hits = pd.DataFrame({"id": [2**60 + 1], "score": [1.0]})
    assert json.loads(hits_as_json(hits, show=[]))[0]["id"] == 2**60 + 1


def test_a_column_that_is_not_there_is_refused(console: Console, hits: pd.DataFrame) -> None:
    with pytest.raises(QueryError, match=r"--show: expected some of .*title.*received \['shoe'\]"):
        show_hits(console, hits, title="all", show=["title", "shoe"])
    with pytest.raises(QueryError, match="score"):
        hits_as_json(hits, show=["score"])


def test_versions_are_shown_with_their_figures(
    console: Console, published: tuple[Path, Results]
) -> None:
    out, results = published
    show_versions(console, Store(out))
    for found in results["rounds"]:
        figures = found["evaluation"]["segments"]["all"]["figures"]
        cells = row(console, f"{found['version']} ")
        assert (cells[0] == "current") == (found["version"] == results["current_version"])
        mined = "-" if found["round"] == 0 else "1"
        expected = [mined, f"{figures['recall@20']:.4f}", f"{figures['ndcg@20']:.4f}", "exact"]
        assert cells[-4:] == expected


def test_what_comes_next_can_be_typed_as_it_stands(console: Console) -> None:
    show_next(console, Path("my [models]"))
    text = "\n".join(lines(console))
    assert str(Path("my [models]", "current", "report.html")) in text
    for command in ("query u2i", "versions", "serve"):
        assert f"fm-recall {command}" in text
    for command in ("tensorboard --logdir", "http://127.0.0.1:8501/"):
        assert command in text


def test_what_next_can_be_typed_where_the_name_alone_is_not_found(console: Console) -> None:
    show_next(console, Path("my models"), program=".venv/bin/fm-recall")
    text = "\n".join(lines(console))
    assert ".venv/bin/fm-recall versions -m 'my models'" in text
    assert ".venv/bin/tensorboard --logdir 'my models/logs'" in text
