"""`query`: what it answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.retrieval.retriever import Retriever
from serving.version.store import Store

if TYPE_CHECKING:
    from tests.pipelines.conftest import Call

USER, ITEM = str(2**40), "item 3 é"


@pytest.mark.parametrize(
    ("direction", "id"), [("u2i", USER), ("i2i", ITEM), ("u2u", USER), ("i2u", ITEM)]
)
def test_query_answers_as_the_retriever_does(
    call: Call, models: Path, direction: str, id: str
) -> None:
    answer = call("query", direction, "-m", models, "--id", id, "-k", 3, "--json")
    assert (answer.code, answer.err) == (0, "")
    own = int(id) if direction[0] == "u" else id
    expected = Retriever.open(models).retrieve(direction, id=own, k=3)
    hits = json.loads(answer.out)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert [hit["id"] for hit in hits] == expected["id"].tolist()
    assert [hit["score"] for hit in hits] == pytest.approx(expected["score"].tolist(), abs=1e-6)
    table = call("query", direction, "-m", models, "--id", id, "-k", 3).out
    assert f"{direction}, version {Store(models).current()}" in table
    assert all(str(hit["id"]) in table for hit in hits)


@pytest.mark.parametrize(
    ("direction", "features"),
    [
        ("u2i", {"history": [ITEM, "item 7 é"], "city": "Łódź", "age": 30}),
        ("u2u", {"history": [ITEM]}),
        ("i2i", {"tags": ["group 2"]}),
        ("i2u", {"item_id": "new", "tags": ["group 2"]}),
        ("u2i", {}),
    ],
)
def test_query_answers_for_someone_new(
    call: Call, models: Path, direction: str, features: dict[str, Any]
) -> None:
    text = json.dumps(features, ensure_ascii=False)
    answer = call("query", direction, "--models", models, "--features", text, "--json")
    assert (answer.code, answer.err) == (0, "")
    expected = Retriever.open(models).retrieve(direction, features=features)
    assert [hit["id"] for hit in json.loads(answer.out)] == expected["id"].tolist()


def test_query_leaves_out_what_is_not_wanted(call: Call, models: Path) -> None:
    def found(*args: object) -> list[str]:
        answer = call("query", "u2i", "-m", models, "--id", USER, "-k", 40, "--json", *args)
        assert answer.code == 0
        return [hit["id"] for hit in json.loads(answer.out)]

    every = found()
    assert len(every) == 40
    assert found("--exclude", f"{every[0]}, {every[2]},nobody") == [every[1], *every[3:]]
    retriever = Retriever.open(models)
    seen = set(retriever.catalogue("item").ids(retriever.parts.seen.of("user", 0)))
    assert seen
    assert found("--exclude-seen") == [item for item in every if item not in seen]


def test_query_answers_with_what_differs_in_kind(call: Call, models: Path) -> None:
    args = ("query", "u2u", "-m", models, "--id", USER, "-k", 10, "--json")
    capped = json.loads(call(*args, "--max-per", "city=1", "--show", "city").out)
    assert sorted(hit["columns"]["city"] for hit in capped) == ["Lima", "Oslo", "Rome", "Łódź"]
    unlike = json.loads(call(*args, "--diversity", 0.9).out)
    expected = Retriever.open(models).retrieve("u2u", id=int(USER), k=10, diversity=0.9)
    assert [hit["id"] for hit in unlike] == expected["id"].tolist()
    assert [hit["id"] for hit in unlike] != [hit["id"] for hit in json.loads(call(*args).out)]
    refused = call(*args, "--max-per", "city")
    assert refused.code == 2
    assert "--max-per: expected columns with a number each" in refused.err


def test_query_shows_columns_that_are_asked_for(call: Call, models: Path) -> None:
    args = ("query", "u2i", "-m", models, "--id", USER, "-k", 2)
    assert "Title" not in call(*args).out
    table = call(*args, "--show", "title, tags").out
    hits = json.loads(call(*args, "--show", "title,tags", "--json").out)
    assert list(hits[0]) == ["rank", "id", "score", "columns"]
    for shown in (hit["columns"] for hit in hits):
        assert list(shown) == ["title", "tags"]
        assert shown["tags"] == [f"group {int(shown['title'].split()[1]) % 4}", "any"]
        assert shown["title"] in table
        assert ", ".join(shown["tags"]) in table


def test_query_asks_an_earlier_version(call: Call, models: Path) -> None:
    for version in (1, 2):
        args = ("query", "u2i", "-m", models, "--id", USER, "--version", version)
        hits = json.loads(call(*args, "--json").out)
        expected = Retriever.open(models, version=version).retrieve("u2i", id=int(USER))
        assert [hit["id"] for hit in hits] == expected["id"].tolist()
        assert f"u2i, version {version}" in call(*args).out
