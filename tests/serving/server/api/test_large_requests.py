"""What is large is read and written where it keeps nobody waiting."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.server.api import retrieve_routes
from serving.server.runtime.server_core import SMALL_BYTES
from serving.server.tf_serving import rest_predict
from serving.server.tf_serving.json_request import JsonRequest
from tests.patience import PATIENCE_S
from tests.serving.server.api_support import Api, running_api

LONG = ["item 1"] * 100
SOURCES = [{"features": {"history": LONG}}] * 64
U2I = "/v1/retrieve/u2i/batch"


@pytest.fixture(scope="module")
def api(published: Path) -> Iterator[Api]:
    with running_api(published, max_list=100) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(published: Path) -> Iterator[Api]:
    """Takes few values in one request."""
    with running_api(published, max_cells=1000) as running:
        yield running


class Slow:
    """A function that ends once `go` is set."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **given: Any) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        return self._function(*args, **given)


STEPS = {
    "read": (orjson, "loads", U2I, {"sources": SOURCES}),
    "written": (
        retrieve_routes,
        "_write",
        U2I,
        {"sources": SOURCES, "k": 100, "columns": ["title", "price"]},
    ),
    "read as TF Serving does": (
        JsonRequest,
        "parse",
        "/v1/models/u2i:predict",
        {"inputs": {"history": [LONG] * 64, "city": ["a"] * 64}},
    ),
    "written as TF Serving does": (
        rest_predict,
        "dump",
        "/v1/models/u2i:predict",
        {
            "inputs": {"history": [["item 1"]] * 100, "city": ["a"] * 100,
                       "k": [120] * 100, "exclude": [["?"]] * 100},
            "signature_name": "top_k",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_health_is_answered_while_a_large_request_is(
    api: Api, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    where, name, path, body = STEPS[step]
    slow = Slow(getattr(where, name))
    with monkeypatch.context() as patched:
        patched.setattr(where, name, slow)
        waiting = api.portal.start_task_soon(partial(api.client.post, path, json=body))
        assert slow.begun.wait(PATIENCE_S)
        health = api.portal.start_task_soon(partial(api.client.get, "/healthz"))
        try:
            assert health.result(PATIENCE_S).status_code == 200
            assert not waiting.done()
        finally:
            slow.go.set()
        assert waiting.result(PATIENCE_S).status_code == 200, waiting.result().text


def test_what_is_wrong_with_a_large_request_is_said_as_of_a_small_one(api: Api) -> None:
    wrong = [*SOURCES, {"features": {"history": [{}]}}]
    large = api.post(U2I, {"sources": wrong})
    assert len(json.dumps(wrong)) > SMALL_BYTES
    small = api.post(U2I, {"sources": wrong[-1:]})
    assert large.status_code == small.status_code == 400
    said = large.json()["error"]["message"]
    assert said.replace("sources.64", "sources.0") == small.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[" + b"[]," * 5000 + b"[]]", b'{"a" :1,' * 2000, b"{" * 5000])
@pytest.mark.parametrize(
    "path", [U2I, "/v1/items", "/v1/models/u2i:predict", "/v1/models/u2i:regress"]
)
def test_json_of_too_many_values_is_refused_before_it_is_parsed(
    narrow: Api, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    """A parser holds up all threads."""
    monkeypatch.setattr(orjson, "loads", None)
    headers = {"content-type": "application/json"}
    answer = narrow.request("POST", path, content=body, headers=headers)
    assert answer.status_code == 413, answer.text
    assert "in one request, received about" in str(answer.json()["error"])


def test_one_question_with_a_large_filter_is_checked_where_it_keeps_nobody_waiting(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(retrieve_routes._ask)
    monkeypatch.setattr(retrieve_routes, "_ask", slow)
    where = {"column": "title", "in": [f"title {n}" for n in range(5000)]}
    body = {"features": {"city": "a"}, "where": where}
    waiting = api.portal.start_task_soon(partial(api.client.post, "/v1/retrieve/u2i", json=body))
    assert slow.begun.wait(PATIENCE_S)
    assert api.get("/healthz").status_code == 200
    slow.go.set()
    assert waiting.result(PATIENCE_S).status_code == 200, waiting.result().text


def test_all_lists_of_a_filter_together_have_a_limit(api: Api) -> None:
    one = {"column": "title", "in": [f"title {n}" for n in range(6000)]}
    body = {"features": {"city": "a"}, "where": {"or": [one, {"not": one}]}}
    answer = api.post("/v1/retrieve/u2i", body)
    assert answer.status_code == 400
    assert "at most 10000 values in all lists of a filter" in answer.json()["error"]["message"]


def test_columns_of_all_results_have_a_limit(api: Api) -> None:
    body = {"sources": SOURCES * 10, "k": 100, "columns": ["title"] * 5}
    answer = api.post(U2I, body)
    assert answer.status_code == 413
    assert "columns: expected at most 262144 values" in answer.json()["error"]["message"]
