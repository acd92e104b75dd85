from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.server.api.table_json import json_response, plain_records
from serving.server.errors import DeadlineError, OverloadedError
from tests.serving.server.api_support import Api, running_api

ROW = 3
USER, ITEM = 2**40 + ROW, f"item {ROW}"
SOURCES: dict[str, Any] = {"u2i": USER, "u2u": USER, "i2i": ITEM, "i2u": ITEM}


@pytest.fixture(scope="module")
def api(published: Path) -> Iterator[Api]:
    with running_api(published, max_k=200, max_batch=8) as api:
        yield api


def ids(answer: dict[str, Any]) -> list[Any]:
    return [result["id"] for result in answer["results"]]


def refused(api: Api, path: str, body: Any) -> tuple[int, str, str]:
    response = api.post(path, body)
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    return response.status_code, error["code"], error["message"]


@pytest.mark.parametrize("direction", SOURCES)
def test_answers_are_the_full_ranking(world: Any, api: Api, direction: str) -> None:
    source = SOURCES[direction]
    expected, scores = world.rank(direction, ROW)
    others = expected != source
    answer = api.post(f"/v1/retrieve/{direction}", {"id": source, "k": 50}).json()
    assert ids(answer) == expected[others][:50].tolist()
    found = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(found, scores[others][:50], rtol=1e-5, atol=1e-5)
    assert answer["version"] == 1
    assert answer["direction"] == direction
    assert set(answer["results"][0]) == {"id", "score"}


def test_features_say_the_same_as_the_id(world: Any, api: Api) -> None:
    features = {name: values[0] for name, values in world.features("user", ROW).items()}
    by_features = api.post("/v1/retrieve/u2i", {"features": features}).json()
    assert ids(by_features) == ids(api.post("/v1/retrieve/u2i", {"id": USER}).json())
    assert len(by_features["results"]) == 10


def test_options_are_applied_and_said_to_be(world: Any, api: Api) -> None:
    unwanted = ids(api.post("/v1/retrieve/u2i", {"id": USER, "k": 5}).json())
    where = {"and": [{"column": "genres", "equals": "x"}, {"column": "price", "range": {"gt": -1}}]}
    query = {
        "id": USER,
        "k": 200,
        "exclude": [*unwanted, unwanted[0], "item none"],
        "exclude_seen": True,
        "where": where,
        "min_score": 0.5,
    }
    answer = api.post("/v1/retrieve/u2i", query).json()
    assert answer["applied"] == {
        "k": 200,
        "excluded": 5,
        "exclude_seen": True,
        "where": where,
        "min_score": 0.5,
        "max_per": {},
        "diversity": 0.0,
    }
    order, scores = world.rank("u2i", ROW)
    table = world.sides["item"].table.to_pandas().set_index("item_id").loc[order]
    seen = set(world.sides["item"].ids.take(world.seen.of("user", ROW)))
    expected = [
        id
        for id, score, genres, price in zip(
            order, scores, table["genres"], table["price"], strict=True
        )
        if score >= 0.5 and "x" in genres and price > -1 and id not in seen and id not in unwanted
    ]
    assert ids(answer) == expected
    assert expected


def test_nothing_is_applied_unless_asked_for(api: Api) -> None:
    answer = api.post("/v1/retrieve/u2i", {"id": USER}).json()
    assert answer["applied"] == {
        "k": 10,
        "excluded": 0,
        "exclude_seen": False,
        "where": None,
        "min_score": None,
        "max_per": {},
        "diversity": 0.0,
    }


@pytest.mark.parametrize("where", [None, {"column": "price", "range": {"lt": 80}}])
def test_targets_are_unlike_each_other_where_that_is_asked_for(
    world: Any, api: Api, where: Any
) -> None:
    query = {"id": USER, "k": 8, "where": where, "max_per": {"genres": 2}, "columns": ["genres"]}
    answer = api.post("/v1/retrieve/u2i", query).json()
    genres = [genre for one in answer["results"] for genre in set(one["columns"]["genres"])]
    assert max(map(genres.count, genres)) <= 2
    scores = [one["score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    alone = api.post("/v1/retrieve/u2i", query | {"max_per": {}, "diversity": 1.0}).json()
    plain = api.post("/v1/retrieve/u2i", query | {"max_per": {}}).json()
    assert len(alone["results"]) == len(plain["results"]) == 8
    assert ids(alone)[0] == ids(plain)[0]
    assert ids(alone) != ids(plain)
    both = {"sources": [{"id": USER}], "k": 8, "where": where, "max_per": {"genres": 2}}
    batch = api.post("/v1/retrieve/u2i/batch", both).json()["answers"][0]
    assert [one["id"] for one in batch] == ids(answer)


def test_columns_are_those_asked_for(world: Any, api: Api) -> None:
    answer = api.post("/v1/retrieve/u2i", {"id": USER, "columns": ["title", "genres"]}).json()
    table = world.sides["item"].table.to_pandas().set_index("item_id")
    for result in answer["results"]:
        row = table.loc[result["id"]]
        assert result["columns"] == {"title": row["title"], "genres": list(row["genres"])}


def test_a_batch_gives_the_answers_of_single_requests(world: Any, api: Api) -> None:
    features = {name: values[0] for name, values in world.features("user", 5).items()}
    sources: list[dict[str, Any]] = [
        {"features": features},
        {"id": USER},
        {"features": {"city": None}},
        {"features": {"city": "a", "history": ["item 1", "item 2"]}},
        {"id": 2**40},
    ]
    options = {"k": 4, "columns": ["title"], "exclude_seen": True}
    answer = api.post("/v1/retrieve/u2i/batch", {"sources": sources, **options}).json()
    assert answer["version"] == 1
    assert len(answer["answers"]) == len(sources)
    for source, results in zip(sources, answer["answers"], strict=True):
        alone = api.post("/v1/retrieve/u2i", {**source, **options}).json()
        assert [result["id"] for result in results] == ids(alone)
        assert [result["columns"] for result in results] == [
            result["columns"] for result in alone["results"]
        ]
    assert answer["applied"]["k"] == 4


def test_a_batch_of_sources_of_which_nothing_is_known(api: Api) -> None:
    answer = api.post("/v1/retrieve/u2i/batch", {"sources": [{"features": {}}] * 3}).json()
    alone = api.post("/v1/retrieve/u2i", {"features": {}}).json()
    assert answer["answers"] == [alone["results"]] * 3


@pytest.mark.parametrize(
    ("direction", "query", "message"),
    [
        ("i2x", {"id": ITEM}, "path.direction: Input should be 'u2i', 'i2i', 'u2u' or 'i2u'"),
        ("u2i", {}, "body: expected either an id or features"),
        ("u2i", {"id": USER, "features": {}}, "body: expected either an id or features"),
        ("u2i", {"id": str(USER)}, "user_id: expected a 64-bit integer, as in training"),
        ("u2i", {"id": True}, "body.id: expected a 64-bit integer or text, received True"),
        ("u2i", {"id": 1.5}, "body.id: expected a 64-bit integer or text"),
        ("u2i", {"id": 2**63}, "body.id: expected a 64-bit integer or text"),
        ("u2i", {"id": USER, "k": 0}, "body.k: Input should be greater than or equal to 1"),
        ("u2i", {"id": USER, "k": 201}, "k: expected at most 200, received 201"),
        ("u2i", {"id": USER, "k": "10"}, "body.k: Input should be a valid integer"),
        ("u2i", {"id": USER, "limit": 3}, "body: unknown field 'limit'"),
        ("u2i", {"id": USER, "max_per": {"x": 1}}, "received 'x', which the table"),
        ("u2i", {"id": USER, "max_per": {"price": 0}}, "greater than or equal to 1"),
        ("u2i", {"id": USER, "diversity": 1.5}, "less than or equal to 1"),
        ("u2i", {"id": USER, "min_score": 1e39}, "body.min_score: Input should be less than"),
        ("u2i", {"id": USER, "exclude": [7]}, "item_id: expected text"),
        ("u2i", {"id": USER, "columns": ["year"]}, "received 'year'"),
        ("u2i", {"id": USER, "where": {"column": "year", "equals": 1}}, "received 'year'"),
        ("u2i", {"id": USER, "where": {"column": "price", "equals": "a"}}, "received 'a'"),
        ("u2i", {"id": USER, "where": {"column": "price"}}, "expected one of the keys equals, in"),
        ("u2i", {"features": {"town": "a"}}, "unknown features ['town']"),
        ("u2i", {"features": {"city": {"name": "a"}}}, "body.features: 'city': expected a value"),
        ("i2i", {"features": {"price": "cheap"}}, "feature 'price'"),
        ("i2i", {"id": ITEM, "exclude_seen": True}, "exclude_seen: expected u2i or i2u"),
    ],
)
def test_requests_that_have_no_answer_are_400(
    api: Api, direction: str, query: dict[str, Any], message: str
) -> None:
    code, name, text = refused(api, f"/v1/retrieve/{direction}", query)
    assert (code, name) == (400, "INVALID_ARGUMENT")
    assert message in text


def test_unknown_ids_are_404(api: Api) -> None:
    assert refused(api, "/v1/retrieve/u2i", {"id": 7}) == (
        404,
        "NOT_FOUND",
        "user_id: version 1 has no user 7; ask by features instead",
    )
    sources = [{"id": USER}, {"id": 8}, {"id": 9}]
    code, _, message = refused(api, "/v1/retrieve/u2i/batch", {"sources": sources})
    assert code == 404
    assert "no user 8, 9;" in message


def test_too_many_sources_are_413(api: Api) -> None:
    code, name, message = refused(api, "/v1/retrieve/u2i/batch", {"sources": [{"id": USER}] * 9})
    assert (code, name) == (413, "INVALID_ARGUMENT")
    assert "sources: expected at most 8, received 9" in message


def test_too_many_results_and_too_long_lists_are_413(published: Path) -> None:
    with running_api(published) as api:
        sources: list[dict[str, Any]] = [{"id": USER}] * 101
        code, _, message = refused(api, "/v1/retrieve/u2i/batch", {"sources": sources, "k": 1000})
        assert code == 413
        assert "expected at most 100000 results" in message
        sources[0] = {"features": {"history": [""] * 10_000}}
        code, _, message = refused(api, "/v1/retrieve/u2i/batch", {"sources": sources})
        assert code == 413
        assert "expected at most 262144 values once all are as long as the longest" in message


def test_empty_batch_is_400(api: Api) -> None:
    code, _, message = refused(api, "/v1/retrieve/u2i/batch", {"sources": []})
    assert code == 400
    assert "body.sources" in message


def test_before_a_version_is_loaded_it_is_503(tmp_path: Path) -> None:
    with running_api(tmp_path, wait=False) as api:
        response = api.post("/v1/retrieve/u2i", {"id": USER})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "UNAVAILABLE"
        assert api.get("/openapi.json").status_code == 200


def test_overload_is_429_and_lateness_504(published: Path) -> None:

    with running_api(published) as api, pytest.MonkeyPatch.context() as patched:
        for error, status in ((OverloadedError("full"), 429), (DeadlineError("late"), 504)):

            async def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
                raise error

            patched.setattr(api.core, "answer", refuse)
            response = api.post("/v1/retrieve/u2i", {"id": USER})
            assert response.status_code == status
            assert response.json()["error"]["message"] == str(error)
            assert ("retry-after" in response.headers) == (status == 429)


def test_what_is_no_clients_fault_is_500_without_details(published: Path) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/path")

    with running_api(published) as api, pytest.MonkeyPatch.context() as patched:
        patched.setattr(api.core, "answer", fail)
        response = api.post("/v1/retrieve/u2i", {"id": USER})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "INTERNAL"
    assert "secret" not in response.text


def test_requests_are_counted(published: Path) -> None:
    with running_api(published) as api:
        api.post("/v1/retrieve/u2i", {"id": USER})
        api.post("/v1/retrieve/u2i", {"id": 7})
        text = api.get("/metrics").text
    line = 'fm_recall_requests_total{{code="{}",model="u2i",surface="retrieve"}} 1.0'
    assert line.format("OK") in text
    assert line.format("NOT_FOUND") in text


def test_other_paths_and_methods_have_the_same_errors(api: Api) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/retrieve/u2i", 405)):
        response = api.request(method, path)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"code", "message"}
    assert response.headers["allow"] == "POST"


def test_the_page_loads_nothing_from_other_hosts(api: Api) -> None:
    page = api.get("/docs").text
    assert "swagger-ui" in page
    assert "//" not in page.replace("http://localhost", "")
    for path in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static-offline-docs/{path}" in page
        assert api.get(f"/static-offline-docs/{path}").status_code == 200


def test_openapi_has_one_shape_of_errors(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert document["info"]["title"] == "fm-recall"
    paths = document["paths"]
    assert {"/v1/retrieve/{direction}", "/v1/retrieve/{direction}/batch", "/v1/items"} < set(paths)
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    for operations in paths.values():
        for operation in operations.values():
            codes = operation["responses"]
            assert "422" not in codes
            for code, response in codes.items():
                assert code == "200" or response["content"]["application/json"]["schema"] == schema


def test_values_of_tables_are_written_as_json() -> None:
    frame = pd.DataFrame(
        {
            "when": pd.Series([pd.Timestamp("2024-05-06"), pd.NaT]),
            "tags": [np.array(["a", None], dtype=object), None],
            "number": [1.5, np.nan],
            "count": pd.array([1, None], dtype="Int64"),
            "vector": [np.array([1, 2], np.int32), np.array([], np.int32)],
        }
    )
    assert json_response(plain_records(frame)).body == (
        b'[{"when":"2024-05-06T00:00:00","tags":["a",null],"number":1.5,"count":1,"vector":[1,2]},'
        b'{"when":null,"tags":null,"number":null,"count":null,"vector":[]}]'
    )
