"""A version that was trained on values of every type reads them alike on every way in."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.candidates.write_candidates import CandidateJob, write_candidates
from pipelines.config import RunConfig
from pipelines.data.prepare import prepare
from pipelines.run import run
from serving.retrieval.retriever import Retriever
from serving.server.api.table_json import plain_records
from tests.made_once import made_once
from tests.pipelines.candidates.job_support import read, settings
from tests.pipelines.conftest import Tiny
from tests.without_graphs import TOWERS, without_graphs
from towers.errors import QueryError
from towers.features.schema import Schema
from towers.features.vocabulary import Tokens, fit_vocabulary

LARGE = 1152921504606846978
"""An integer that no float holds."""
FEATURES: dict[str, Any] = {
    "user": {
        "features": [
            {"kind": "history"},
            {"kind": "categorical", "column": "Is member", "name": "is_member"},
            {"kind": "categorical", "column": "zone"},
            {"kind": "categorical", "column": "since"},
            {"kind": "numeric", "column": "visits"},
            {
                "kind": "numeric",
                "column": "height",
                "pattern": "([0-9]+)' ?([0-9]+)\"",
                "factors": [12.0, 1.0],
            },
        ]
    },
    "item": {
        "features": [
            {"kind": "categorical", "column": "item_id"},
            {"kind": "categorical", "column": "Book-Author", "name": "book_author"},
            {"kind": "multi_valued", "column": "codes"},
            {"kind": "numeric", "column": "price"},
        ]
    },
}


@pytest.fixture(scope="module")
def tables(tiny: Tiny) -> dict[str, pd.DataFrame]:
    users, items = tiny.tables["users"], tiny.tables["items"]
    n, m = np.arange(len(users)), np.arange(len(items))
    users = pd.DataFrame(
        {
            "user_id": users["user_id"],
            "Is member": n % 3 == 0,
            "zone": pd.Series(np.where(n % 5, n % 4, -1), dtype="Int64").mask(n % 5 == 0),
            "since": [datetime.date(2020, 1, 1 + row % 4) for row in n],
            "visits": n % 7,
            "height": [f"{5 + row % 2}' {row % 12}\"" for row in n],
            "not read": "x",
        }
    )
    items = pd.DataFrame(
        {
            "item_id": items["item_id"],
            "Book-Author": [f"00{row % 3}" for row in m],
            "codes": [[1, 2][: 1 + row % 2] for row in m],
            "price": m + 5,
            "serial": pd.Series(m + LARGE, dtype="Int64").mask(m == 1),
            "in print": m % 2 == 0,
        }
    )
    return {"interactions": tiny.tables["interactions"], "users": users, "items": items}


@pytest.fixture(scope="module")
def config(tiny: Tiny) -> RunConfig:
    training = {"epochs": 1, "rounds": 0, "refit_on_all": False}
    return tiny.config(**FEATURES, training=training)


@pytest.fixture(scope="module")
def models(
    tables: dict[str, pd.DataFrame], config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Trained on the tables as DataFrames."""

    def make(folder: Path) -> None:
        with without_graphs(but=TOWERS):
            run(config, folder / "models", frames=tables)

    return made_once(tmp_path_factory, "values", make) / "models"


@pytest.fixture(scope="module")
def retriever(models: Path) -> Retriever:
    return Retriever.open(models)


def write(folder: Path, tables: dict[str, pd.DataFrame], tiny: Tiny, *, suffix: str) -> RunConfig:
    """Write the tables, and give the configuration that reads them."""
    data = {}
    for name, table in tables.items():
        data[name] = {"path": str(folder / f"{name}.{suffix}")}
        if suffix == "parquet":
            table.to_parquet(data[name]["path"])
        else:
            texts = {
                c: table[c].map(lambda x: "|".join(map(str, x))) for c in table if c == "codes"
            }
            table.assign(**texts).to_csv(data[name]["path"], index=False)
    return tiny.config(**FEATURES, data=data)


def spaces(schema: Schema, users: pd.DataFrame, items: pd.DataFrame) -> dict[str, Any]:
    """The tokens of every feature."""
    ones: dict[str, Any] = {
        "user_counts": np.ones(len(users), np.int64),
        "item_counts": np.ones(len(items), np.int64),
    }
    found = fit_vocabulary(schema, users=users, items=items, **ones)
    return {
        name: (space.tokens.tolist(), space.counts.tolist()) if isinstance(space, Tokens) else space
        for name, space in found.spaces.items()
    }


def test_csv_parquet_and_frames_train_the_same_vocabulary(
    tables: dict[str, pd.DataFrame], config: RunConfig, tiny: Tiny, tmp_path: Path
) -> None:
    frames = prepare(config, tmp_path / "frames", frames=tables)
    expected = spaces(config.schema, frames.users, frames.items)
    assert expected["user.is_member"][0] == ["false", "true"]
    assert expected["user.zone"][0] == [0, 1, 2, 3]
    assert expected["user.since"][0][0] == "2020-01-01"
    assert expected["item.book_author"][0] == ["000", "001", "002"]
    assert expected["item.codes"][0] == [1, 2]
    for suffix in ("csv", "parquet"):
        written = write(tmp_path, tables, tiny, suffix=suffix)
        found = prepare(written, tmp_path / f"from-{suffix}")
        assert spaces(config.schema, found.users, found.items) == expected
        for name in ("serial", "in print", "price"):
            assert found.items[name].tolist()[2:] == frames.items[name].tolist()[2:], name
        assert found.items["serial"][0] == LARGE
        assert found.items["serial"].isna()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "same",
    [
        {"is_member": True, "zone": 2, "since": datetime.date(2020, 1, 3), "visits": 5},
        {"is_member": "True", "zone": "2", "since": "2020-01-03 00:00:00", "visits": "5"},
        {"is_member": np.bool_(True), "zone": 2.0, "since": "2020-01-03", "visits": "5.0"},
        {"is_member": "true", "zone": "2.0", "since": pd.Timestamp("2020-01-03"), "visits": 5.0},
    ],
)
@pytest.mark.parametrize("height", [68, "68.0", "5' 8\"", " 5'8\""])
def test_queries_read_values_as_training_did(
    retriever: Retriever, same: dict[str, Any], height: Any
) -> None:
    plain = {"is_member": "true", "zone": 2, "since": "2020-01-03", "visits": 5, "height": 68.0}
    same = same | {"height": height}
    expected = retriever.retrieve("u2i", features=plain, k=5)
    pd.testing.assert_frame_equal(retriever.retrieve("u2i", features=same, k=5), expected)
    other = retriever.retrieve("u2i", features=plain | {"is_member": False}, k=40)
    assert other["score"].tolist()[:5] != expected["score"].tolist()


@pytest.mark.slow
def test_the_parquet_file_that_trained_is_a_candidates_input_as_it_is(
    retriever: Retriever, models: Path, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    tables["users"].to_parquet(tmp_path / "users.parquet")
    csv_like = tables["users"].astype(str).replace("<NA>", "")
    csv_like["user_id"] = tables["users"]["user_id"]
    csv_like.to_parquet(tmp_path / "text.parquet")
    found = []
    for name in ("users", "text"):
        job = CandidateJob(
            models=models,
            out=tmp_path / name,
            users=tmp_path / f"{name}.parquet",
            settings=settings(exclude_seen=False, prefer_features=True),
        )
        totals = write_candidates(job)
        assert totals["candidates"]["rejected"] == 0, totals
        found.append(read(tmp_path / name))
    pd.testing.assert_frame_equal(found[0], found[1])
    user = {"is_member": False, "zone": 1, "since": "2020-01-02", "visits": 1, "height": 73}
    best = retriever.retrieve("u2i", features=user, k=3)["score"].tolist()
    row = found[0][found[0]["user_id"] == tables["users"]["user_id"][1]]
    np.testing.assert_allclose(row["score"].tolist()[:3], best, rtol=1e-5)


@pytest.mark.slow
def test_a_record_may_write_a_number_as_the_table_did(models: Path) -> None:
    retriever = Retriever.open(models)
    shown = retriever.catalogue("user").show(np.array([1]), ["height"])
    assert shown["height"].tolist() == [73.0]
    put = {"user_id": 5, "height": "7' 11\""}
    retriever.apply(retriever.change("user", upsert=[put]))
    tall = {"column": "height", "range": {"gte": 90}}
    found = retriever.retrieve("i2u", id="item 0 é", k=60, where=tall)
    assert found["user.height"].tolist() == [95.0]
    with pytest.raises(QueryError, match="height"):
        retriever.change("user", upsert=[put | {"height": "tall"}])


@pytest.mark.slow
def test_columns_keep_their_type_and_integers_their_digits(
    retriever: Retriever, models: Path
) -> None:
    hits = retriever.retrieve("u2i", features={}, k=40).sort_values("item.price", ignore_index=True)
    assert hits["item.price"].tolist() == list(range(5, 45))
    assert str(hits["item.price"].dtype) == "int64"
    assert str(hits["item.serial"].dtype) == "Int64"
    assert hits["item.serial"].isna().tolist() == [row == 1 for row in range(40)]
    assert hits["item.serial"].dropna().tolist() == [LARGE + row for row in range(40) if row != 1]
    shown = json.loads(json.dumps(plain_records(hits), default=lambda value: None))
    assert [record["item.serial"] for record in shown][:3] == [LARGE, None, LARGE + 2]
    [items] = models.glob("versions/*/items.parquet")
    schema = pq.read_schema(items).field("columns").type
    kinds = {name: str(schema.field(name).type) for name in ("price", "serial", "in print")}
    assert kinds == {"price": "int64", "serial": "int64", "in print": "bool"}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, "True", "true"])
def test_a_filter_finds_what_the_table_called_true(retriever: Retriever, wanted: Any) -> None:
    where = {"column": "in print", "equals": wanted}
    assert len(retriever.retrieve("u2i", features={}, k=40, where=where)) == 20
    members = {"column": "Is member", "equals": wanted}
    user = retriever.retrieve("i2u", id="item 0 é", k=60, where=members)
    assert len(user) == 20


@pytest.mark.slow
def test_a_range_on_text_is_refused_with_the_remedy(retriever: Retriever) -> None:
    where = {"column": "serial", "range": {"lt": LARGE + 2}}
    assert len(retriever.retrieve("u2i", features={}, k=40, where=where)) == 1
    with pytest.raises(
        QueryError, match=r"Book-Author.* read as text, with values such as '00\d'; .*publish again"
    ):
        retriever.retrieve(
            "u2i", features={}, where={"column": "Book-Author", "range": {"lt": "001"}}
        )


@pytest.mark.slow
def test_features_are_known_by_their_name_and_tables_by_their_columns(
    retriever: Retriever,
) -> None:
    assert "book_author" in retriever.tower("item").inputs
    with pytest.raises(QueryError, match="unknown features"):
        retriever.retrieve("i2i", features={"Book-Author": "001"})
    explained = retriever.explain("u2i", source={"features": {}}, target={"id": "item 0 é"})
    assert {name.field for name in explained.target} >= {"item_id", "book_author", "codes"}
    similar = retriever.retrieve("i2i", features={"book_author": "001"}, k=2)
    assert list(similar["item.Book-Author"])
