from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serving.server.observing.requests import ACCESS, AddRequest, NoteRequests, Noting
from serving.server.observing.tracing import Tracing
from tests.serving.server.api_support import Api, running_api
from towers.errors import ConfigError

USER = 2**40 + 3
GIVEN = "checkout-7:4711"


@pytest.fixture(scope="module")
def api(published: Path) -> Iterator[Api]:
    with running_api(published) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("POST", "/v1/retrieve/u2i", 200),
        ("POST", "/v1/retrieve/x2y", 400),
        ("GET", "/no/such/path", 404),
        ("POST", "/v1/models/u2i:predict", 400),
    ],
)
def test_a_request_keeps_its_name_or_gets_one(
    api: Api, method: str, path: str, status: int
) -> None:
    headers = {"X-Request-Id": GIVEN}
    answer = api.request(method, path, json={"id": USER}, headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, GIVEN)
    others = {api.request(method, path, json={}).headers["x-request-id"] for _ in range(3)}
    assert len(others) == 3
    assert GIVEN not in others
    for strange in ("x" * 129, "a b", "", "ä"):
        sent = api.request(method, path, headers={"X-Request-Id": strange.encode()})
        assert sent.headers["x-request-id"] not in {strange, ""}


def test_what_is_logged_meanwhile_has_the_name(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(type(api.core.versions.current().retriever), "ask", fail)
    caplog.handler.addFilter(named := AddRequest())
    answer = api.request(
        "POST", "/v1/retrieve/u2i", json={"id": USER}, headers={"X-Request-Id": GIVEN}
    )
    caplog.handler.removeFilter(named)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == GIVEN


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    logging.getLogger("inside").warning("said")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"four"})


def ask(noting: Noting, path: str, headers: dict[str, str] | None = None) -> None:
    """Have an app that says something answer."""
    import asyncio  # noqa: PLC0415

    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope: Any = {"type": "http", "method": "GET", "path": path, "headers": pairs}

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(NoteRequests(answer_ok, noting=noting)(scope, nothing, nothing))


def test_the_access_log_has_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ACCESS.setLevel(logging.INFO)
    caplog.handler.addFilter(named := AddRequest())
    ask(Noting(access_log=True), "/v1/items/1", {"x-request-id": GIVEN})
    ask(Noting(access_log=True), "/healthz")
    ask(Noting(), "/v1/items/2")
    caplog.handler.removeFilter(named)
    (line,) = [vars(one) for one in caplog.records if one.name == ACCESS.name]
    assert line["what"] == "GET /v1/items/1"
    assert (line["status"], line["bytes"], line["surface"]) == ("200", 4, "http")
    assert line["ms"] >= 0
    said = [vars(one).get("request") for one in caplog.records if one.name == "inside"]
    assert said[0] == line["request"] == GIVEN
    assert len(set(said)) == 3
    json.dumps({name: line[name] for name in ("what", "status", "ms", "bytes", "who", "request")})


def test_traces_go_on_from_the_one_that_a_request_is_a_part_of() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    kept = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    noting = Noting(tracing=Tracing(provider))
    ask(noting, "/v1/items/1", {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": GIVEN})
    ask(noting, "/v1/items/2")
    first, second = kept.get_finished_spans()
    assert (first.name, f"{first.context.trace_id:032x}") == ("GET /v1/items/1", trace)
    assert f"{first.parent.span_id:016x}" == parent
    assert first.attributes["fm_recall.request"] == GIVEN
    assert first.attributes["fm_recall.status"] == "200"
    assert second.parent is None


def test_traces_without_the_extra_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("serving.server.observing.tracing.import_module", missing)
    with pytest.raises(ConfigError, match=r"fm-recall\[tracing\]"):
        Tracing.to_collector()
