"""Users and items that are taken from the rows of the interactions, in memory and on disk."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.data.prepare import Prepared, prepare
from tests.pipelines.data.prepare_support import Given
from towers.errors import ConfigError

ROWS: list[dict[str, Any]] = [
    {"u": "a", "i": 1, "at": "April 20, 2016", "weight": "137lbs", "tags": ["x"], "sort": "gown"},
    {"u": "a", "i": 2, "at": "May 2, 2017", "weight": "140lbs", "sort": "top"},
    {"u": "a", "i": 3, "at": "May 3, 2017", "weight": None, "tags": ["x", "y"], "sort": "top"},
    {"u": "b", "i": 1, "at": "June 1, 2015", "weight": "99.5 lbs", "tags": ["z"], "sort": "gown"},
    {"u": "b", "i": 2, "at": "June 2, 2014", "weight": "heavy", "tags": ["z"], "sort": "top"},
    {"u": "c", "i": 1, "at": "July 1, 2018", "weight": "", "tags": None, "sort": "dress"},
]


def given(folder: Path, *, kind: str = "json", take: str | None = None, **users: Any) -> Given:
    """The rows as JSON lines, CSV or Parquet."""
    path = folder / {"json": "t.json.gz", "csv": "t.csv", "parquet": "t.parquet"}[kind]
    if kind == "json":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    elif kind == "csv":
        frame = pd.DataFrame(ROWS)
        frame["tags"] = frame["tags"].map(lambda tags: "|".join(tags or []), na_action="ignore")
        frame.to_csv(path, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    chosen = {} if take is None else {"take": take}
    weight = {"kind": "numeric", "column": "weight", "pattern": "([0-9.]+) ?lbs"}
    return Given(
        folder=folder,
        settings={
            "data": {
                "interactions": {"path": str(path), "user": "u", "item": "i", "timestamp": "at"},
                "users": {"id": "u", "source": "interactions", **chosen, **users},
                "items": {"id": "i", "source": "interactions", "keep": ["sort"], **chosen},
            },
            "user": {"features": [{"kind": "history"}, weight]},
            "item": {
                "features": [
                    {"kind": "categorical", "column": "i"},
                    {"kind": "multi_valued", "column": "tags"},
                ]
            },
            "split": {"test_fraction": 0.0, "validation_fraction": 0.0},
        },
    )


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
@pytest.mark.parametrize("rows", [None, 2])
def test_each_column_has_the_latest_value_that_is_given(
    tmp_path: Path, kind: str, rows: int | None
) -> None:
    tables = given(tmp_path, kind=kind)
    found = tables.whole() if rows is None else tables.blocked(rows)
    assert weights(found) == {"a": 140.0, "b": 99.5, "c": None}
    assert lists(found) == {1: ["x"], 2: ["z"], 3: ["x", "y"]}
    assert dict(zip(found.items["i"], found.items["sort"], strict=True))[1] == "dress"
    assert found.counts["train"] == len(ROWS)
    said = "\n".join(found.lines)
    assert "taken from the rows of the interactions: of several values the latest" in said
    assert "sort: 1 of 3 items have several values" in said


def weights(found: Prepared) -> dict[str, float | None]:
    numbers = [None if pd.isna(number) else float(number) for number in found.users["weight"]]
    return dict(zip(found.users["u"], numbers, strict=True))


def lists(found: Prepared) -> dict[int, list[str]]:
    return {i: list(tags) for i, tags in zip(found.items["i"], found.items["tags"], strict=True)}


def test_the_most_frequent_value_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    found = given(tmp_path, take="frequent").whole()
    sorts = dict(zip(found.items["i"], found.items["sort"], strict=True))
    assert sorts == {1: "gown", 2: "top", 3: "top"}
    assert weights(found) == {"a": 140.0, "b": 99.5, "c": None}  # as frequent: the latest


def test_values_cannot_be_taken_where_nothing_says_which(tmp_path: Path) -> None:
    tables = given(tmp_path, take="latest")
    tables.settings["data"]["interactions"].pop("timestamp")
    with pytest.raises(ConfigError, match=r"data.users.take: expected times"):
        tables.whole()
    with pytest.raises(ConfigError, match=r"data.users.id: expected 'u'.*received 'i'"):
        given(tmp_path, id="i").whole()
    with pytest.raises(ConfigError, match="expected none with source"):
        _ = given(tmp_path, path="x.csv").config
    with pytest.raises(ConfigError, match="keep: expected with source"):
        _ = given(tmp_path, source="file", keep=["sort"]).config


def test_a_dataframe_is_taken_apart_too(tmp_path: Path) -> None:
    tables = given(tmp_path, kind="parquet")
    frames = {"interactions": pd.DataFrame(ROWS)}
    found = prepare(tables.config, tmp_path / "frames", frames=frames)
    stored = tables.whole()
    assert weights(found) == weights(stored)
    assert lists(found) == lists(stored)
    users = {"users": pd.DataFrame({"u": ["a"], "weight": ["1lbs"]})}
    with pytest.raises(ConfigError, match=r"data.users: expected no DataFrame"):
        prepare(tables.config, tmp_path / "both", frames=frames | users)
