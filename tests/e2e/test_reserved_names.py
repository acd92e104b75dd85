"""Tables whose columns have the names that answers, files and requests use for their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.candidates.write_candidates import CandidateJob, write_candidates
from pipelines.cli.show_hits import hits_as_json, show_hits
from pipelines.publishing.publish_milvus import publish_milvus
from serving.milvus.connection import MilvusConnection
from serving.milvus.fields import column_fields
from serving.milvus.index import indexes_in
from serving.retrieval.retriever import Retriever
from tests.made_once import made_once
from tests.pipelines.conftest import N_ITEMS, N_USERS, Tiny
from tests.serving.server.api_support import Api, running_api
from tests.without_graphs import TOWERS, without_graphs
from towers.directions import DIRECTIONS
from towers.features.schema import Side

pytestmark = pytest.mark.slow

NAMES = (
    *("id", "ids", "score", "scores", "rank", "channel", "version", "vector", "columns", "history"),
    *("user_id", "item_id", "user", "item", "k", "exclude", "self", "features", "row", "x", "v"),
    *("w", "index", "count", "distance", "item.title", "label"),
)
READ = ("id", "ids", "score", "rank", "vector", "columns", "version")
"""Those that are features under their own names."""
RENAMED = ("k", "exclude", "self", "item.title")
"""Those that no input can have, which are features of another name."""
USER, ITEM = 2**40, "item 3 é"
IDS: dict[str, Any] = {"user": USER, "item": ITEM}


def tables() -> dict[str, pd.DataFrame]:
    """The tables of the tiny world; users and items have a column of text of each name."""
    found = dict(Tiny().tables)
    for table, own in (("users", "user_id"), ("items", "item_id")):
        names = [name for name in NAMES if name != own]
        columns = {
            name: [f"{name} {row % 5}" for row in range(len(found[table]))] for name in names
        }
        found[table] = pd.concat([found[table], pd.DataFrame(columns)], axis=1)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        tiny = Tiny(tables())
        training = {"epochs": 1, "rounds": 0, "refit_on_all": False}
        settings = tiny.settings(training=training)
        given = [{"column": name} for name in READ]
        given += [{"column": name, "name": f"its_{number}"} for number, name in enumerate(RENAMED)]
        added = [{"kind": "categorical", **feature} for feature in given]
        features = {side: settings[side]["features"] + added for side in ("user", "item")}
        changes = {side: {"features": features[side]} for side in features}
        with without_graphs(but=TOWERS):
            tiny.run(root, training=training, **changes)

    return made_once(tmp_path_factory, "reserved-names", make)


@pytest.fixture(scope="module")
def retriever(root: Path) -> Retriever:
    return Retriever.open(root)


@pytest.fixture(scope="module")
def api(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(root, journal=tmp_path_factory.mktemp("journal")) as api:
        yield api


def record(side: Side, id: Any) -> dict[str, Any]:
    """The row of a table that has an id."""
    table = tables()[f"{side}s"]
    found: dict[str, Any] = table[table[f"{side}_id"] == id].to_dict("records")[0]
    return found


def test_the_parquet_of_a_side_has_the_record_beside_the_vector(retriever: Retriever) -> None:
    sides: tuple[Side, ...] = ("user", "item")
    for side in sides:
        read = pq.read_table(retriever.bundle.path / f"{side}s.parquet")
        assert read.column_names == ["columns", "vector"]
        first = read.slice(0, 1).to_pylist()[0]
        assert first["columns"] == record(side, first["columns"][f"{side}_id"])
        assert len(first["vector"]) == 1 + 8


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_hits_have_the_columns_of_the_table_under_its_name(
    retriever: Retriever, direction: str
) -> None:
    chosen = DIRECTIONS[direction]
    hits = retriever.retrieve(direction, id=IDS[chosen.source], k=3)
    columns = retriever.catalogue(chosen.target).columns
    assert list(hits) == ["id", "score", *(f"{chosen.target}.{name}" for name in columns[1:])]
    assert hits["score"].dtype == np.float32
    expected = record(chosen.target, hits["id"][0])
    for name in columns[1:]:
        value = hits[f"{chosen.target}.{name}"][0]
        assert (list(value) if name == "tags" else value) == expected[name]


def test_query_prints_both(retriever: Retriever) -> None:
    show = ["score", "rank", "id", "vector", "item.title"]
    hits = retriever.retrieve("u2i", id=USER, k=2)
    first = json.loads(hits_as_json(hits, show=show))[0]
    assert list(first) == ["rank", "id", "score", "columns"]
    assert first["rank"] == 1
    assert first["id"] == hits["id"][0]
    assert first["score"] == pytest.approx(hits["score"][0], rel=1e-6)
    expected = record("item", first["id"])
    assert first["columns"] == {name: expected[name] for name in show}
    console = Console(width=200, record=True)
    show_hits(console, hits, title="hits", show=show)
    header, _, row = [line for line in console.export_text().splitlines() if line.strip()][1:4]
    names = ["rank", "id", "score", *(f"item.{name}" for name in show)]
    assert header.split() == names
    assert all(expected[name] in row for name in show)


def test_the_servers_answers_have_both(api: Api, root: Path) -> None:
    show = ["id", "score", "rank", "vector", "history", "columns", "k", "self"]
    answer = api.post("/v1/retrieve/u2i", {"id": USER, "k": 2, "columns": show}).json()
    first = answer["results"][0]
    expected = record("item", first["id"])
    assert first["columns"] == {name: expected[name] for name in show}
    where = {"column": "score", "equals": "score 3"}
    answer = api.post("/v1/retrieve/u2i", {"id": USER, "k": 50, "where": where}).json()
    assert len(answer["results"]) == N_ITEMS // 5
    found = api.get("/v1/explorer/search/item?q=rank%203").json()
    assert found["total"] == N_ITEMS // 5
    assert found["results"][0]["columns"] == record("item", found["results"][0]["id"])
    schema = api.get("/v1/explorer/schema").json()
    assert {column["name"] for column in schema["item"]["columns"]} >= set(NAMES) - {"item_id"}
    past = api.get(f"/v1/explorer/history/{USER}").json()
    assert past["total"] > 0
    pair = {"direction": "u2i", "source": {"id": USER}, "target": {"id": ITEM}}
    explained = api.post("/v1/explain", pair).json()
    assert explained["score"] == pytest.approx(
        sum(part["value"] for part in explained["parts"]) + explained["rest"], abs=1e-4
    )


def test_a_record_that_is_put_is_shown_and_found(api: Api) -> None:
    new = {**record("user", USER), "user_id": 7}
    answer = api.post("/v1/users", {"users": [new]})
    assert answer.status_code == 200, answer.text
    found = api.post("/v1/explorer/lookup/user", {"ids": [7]}).json()["results"]
    assert found == [{"id": 7, "columns": new}]
    features = {"history": [ITEM], "score": "score 1"}  # here, the history is the feature
    answer = api.post("/v1/retrieve/u2i", {"features": features, "exclude_seen": True, "k": 99})
    assert ITEM not in [one["id"] for one in answer.json()["results"]]
    refused = api.post("/v1/users", {"users": [{"user_id": 8, "history": [ITEM]}]})
    assert refused.status_code == 400
    assert "column 'history': expected a value of type" in refused.text


def test_candidates_take_the_tables_that_trained(root: Path, tmp_path: Path) -> None:
    for name, table in tables().items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    job = CandidateJob(
        models=root,
        out=tmp_path / "out",
        users=tmp_path / "users.parquet",
        items=tmp_path / "items.parquet",
    )
    totals = write_candidates(job)
    assert {name: total["rejected"] for name, total in totals.items()} == {
        "candidates": 0,
        "audiences": 0,
    }
    rows = pq.read_table(tmp_path / "out" / "candidates")
    assert rows.column_names == ["user_id", "item_id", "score", "rank", "channel", "version"]
    assert len(set(rows["user_id"].to_pylist())) == N_USERS


def test_milvus_keeps_every_column_and_answers_alike(
    root: Path, retriever: Retriever, tmp_path: Path
) -> None:
    milvus = MilvusConnection(str(tmp_path / "milvus.db"))
    publish_milvus(root, milvus)
    other = Retriever.open(root, index=indexes_in(milvus))
    where = {"and": [{"column": "vector", "equals": "vector 2"}, {"column": "id", "in": ["id 2"]}]}
    for direction, chosen in DIRECTIONS.items():
        asked = {"id": IDS[chosen.source], "k": 5, "where": where}
        expected, found = (one.retrieve(direction, **asked) for one in (retriever, other))
        assert len(expected)
        assert expected["id"].tolist() == found["id"].tolist()
    names = [field.name for field in column_fields(retriever.parts.items)]
    assert len(names) == len(set(names) - {"vector"})
