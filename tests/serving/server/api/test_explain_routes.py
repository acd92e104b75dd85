from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.retrieval.retriever import Retriever
from tests.serving.server.api_support import Api, running_api

USER, ITEM = 2**40 + 3, "item 3"
ENDS: dict[str, tuple[Any, Any]] = {
    "u2i": (USER, ITEM),
    "i2i": (ITEM, "item 8"),
    "u2u": (USER, USER + 5),
    "i2u": (ITEM, USER),
}


@pytest.fixture(scope="module")
def api(published: Path) -> Iterator[Api]:
    with running_api(published) as api:
        yield api


def query(direction: str = "u2i", **changes: Any) -> dict[str, Any]:
    source, target = ENDS[direction]
    body = {"direction": direction, "source": {"id": source}, "target": {"id": target}}
    return body | changes


def refused(api: Api, body: Any) -> tuple[int, str, str]:
    response = api.post("/v1/explain", body)
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize("direction", ENDS)
def test_answer_is_that_of_the_retriever(published: Path, api: Api, direction: str) -> None:
    answer = api.post("/v1/explain", query(direction, limit=4)).json()
    body = query(direction)
    found = Retriever.open(published).explain(
        direction, source=body["source"], target=body["target"]
    )
    assert answer == json.loads(json.dumps(found.to_dict(limit=4)))
    assert len(answer["parts"]) == 4
    total = sum(part["value"] for part in answer["parts"]) + answer["rest"]
    assert total == pytest.approx(answer["score"], abs=1e-5)


def test_score_is_the_one_that_ranked_the_item(api: Api) -> None:
    result = api.post("/v1/retrieve/u2i", {"id": USER, "k": 1}).json()["results"][0]
    answer = api.post("/v1/explain", query(target={"id": result["id"]})).json()
    assert answer["score"] == pytest.approx(result["score"], abs=1e-5)


def test_features_and_limits_are_answered(world: Any, api: Api) -> None:
    features = {name: values[0] for name, values in world.features("user", 3).items()}
    by_id, by_features = (
        api.post("/v1/explain", query(source=source)).json()
        for source in ({"id": USER}, {"features": features})
    )
    assert by_features["score"] == pytest.approx(by_id["score"], abs=1e-5)
    assert len(by_features["parts"]) == len(by_id["parts"]) == 35
    new = {"item_id": "new", "genres": ["x", "?"], "price": None}
    answer = api.post("/v1/explain", query(target={"features": new}, limit=10_000)).json()
    assert answer["rest"] == 0
    tokens = {part["target"]["token"]: part["target"]["known"] for part in answer["parts"]}
    assert tokens == {"new": False, "x": True, "?": False}


def test_items_put_in_are_explained_and_items_taken_out_are_not(
    published: Path, tmp_path: Path
) -> None:
    with running_api(published, journal=tmp_path / "journal") as api:
        item = {"item_id": "fresh", "genres": ["y"], "price": 2.0, "title": "Fresh"}
        assert api.post("/v1/items", {"items": [item]}).status_code == 200
        results = api.post("/v1/retrieve/u2i", {"id": USER, "k": 1000}).json()["results"]
        score = next(one["score"] for one in results if one["id"] == "fresh")
        answer = api.post("/v1/explain", query(target={"id": "fresh"})).json()
        assert answer["score"] == pytest.approx(score, abs=1e-5)
        assert api.request("DELETE", "/v1/items/fresh").status_code == 200
        status, code, message = refused(api, query(target={"id": "fresh"}))
        assert (status, code) == (404, "NOT_FOUND")
        assert message == "item_id: version 1 has no item 'fresh'; explain by features instead"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (query(source={"id": 5}), 404, "user_id: version 1 has no user 5"),
        (query(source={"id": "a"}), 400, "user_id: expected a 64-bit integer"),
        (query(source={}), 400, "expected either an id or features"),
        (query(target={"id": ITEM, "features": {}}), 400, "expected either an id or features"),
        (query(target={"features": {"colour": 1}}), 400, "unknown features ['colour']"),
        (query(target={"features": {"price": 3e38}}), 400, "target: expected features with a"),
        (query(direction="u2i", limit=-1), 400, "body.limit"),
        (query(limit=10_001), 400, "body.limit"),
        (query() | {"direction": "x2y"}, 400, "body.direction"),
        ({"direction": "u2i", "source": {"id": USER}}, 400, "body.target: required"),
        (query(k=3), 400, "unknown field 'k'"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    api: Api, body: Any, status: int, message: str
) -> None:
    code = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT"}[status]
    received = refused(api, body)
    assert received[:2] == (status, code)
    assert message in received[2]


def test_answers_are_counted_and_described(api: Api) -> None:
    api.post("/v1/explain", query())
    figures = api.get("/metrics").text
    assert 'fm_recall_requests_total{code="OK",model="explain",surface="retrieve"}' in figures
    assert 'fm_recall_answer_seconds_count{direction="u2i",model="explain"}' in figures
    document = api.get("/openapi.json").json()
    operation = document["paths"]["/v1/explain"]["post"]
    assert set(operation["responses"]) == {
        *("200", "400", "401", "403", "404", "413", "429", "503", "504", "507", "default")
    }
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Explained"}


def test_towers_answer_with_what_their_vectors_are_made_of(world: Any, api: Api) -> None:
    inputs: dict[str, Any] = world.features("item", 3)
    body = {"signature_name": "features", "inputs": inputs}
    answer = api.post("/v1/models/item_tower:predict", body).json()["outputs"]
    assert set(answer) == {"row", "x", "v", "w"}
    pooled = [
        sum(x * v[place] for x, v in zip(answer["x"][0], answer["v"][0], strict=True))
        for place in range(6)
    ]
    assert pooled == pytest.approx(world.sides["item"].vectors[3, 1:].tolist(), abs=1e-5)
    many = {name: values * 65 for name, values in inputs.items()}
    response = api.post("/v1/models/item_tower:predict", body | {"inputs": many})
    assert "at most 64 rows" in response.json()["error"]
