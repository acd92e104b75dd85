"""Whatever is sent, the answer is no 5xx, is what the OpenAPI page says, and the server goes on."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.patience import wait_until
from tests.serving.server.api_support import Api, running_api

pytestmark = pytest.mark.slow

USER = 2**40 + 3
JSON = {"content-type": "application/json"}
LEAF = '{"column":"genres","equals":"x"}'
"""A condition."""


@pytest.fixture(scope="module")
def api(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(published, journal=tmp_path_factory.mktemp("journal")) as api:
        yield api


def send(api: Api, body: Any, path: str = "/v1/retrieve/u2i", **headers: str) -> Any:
    return api.request("POST", path, content=body, headers=JSON | headers)


def with_filter(where: str) -> str:
    return f'{{"id":{USER},"where":{where}}}'


def still_answers(api: Api) -> bool:
    answer = api.post("/v1/retrieve/u2i", {"id": USER, "k": 3})
    return answer.status_code == 200 and len(answer.json()["results"]) == 3


HOSTILE: dict[str, tuple[str | bytes, int]] = {
    "nothing": ("", 400),
    "null": ("null", 400),
    "a list": ("[]", 400),
    "half": ('{"id":', 400),
    "two": (f'{{"id":{USER}}}' * 2, 400),
    "NaN": ('{"features":{"price":NaN}}', 400),
    "Infinity": (f'{{"id":{USER},"min_score":-Infinity}}', 400),
    "beyond a double": (f'{{"id":{USER},"min_score":1e400}}', 400),
    "beyond a float": (f'{{"id":{USER},"min_score":1e300}}', 400),
    "k of 10**9": (f'{{"id":{USER},"k":1000000000}}', 400),
    "k of 10**30": (f'{{"id":{USER},"k":{10**30}}}', 400),
    "k with a point": (f'{{"id":{USER},"k":1e1}}', 400),
    "id of 2**63": (f'{{"id":{2**63}}}', 400),
    "id of 5000 digits": ('{"id":' + "9" * 5000 + "}", 400),
    "the id that stands for none": (f'{{"id":{-(2**63)}}}', 404),
    "a lone surrogate": ('{"features":{"city":"\\ud800"}}', 400),
    "an encoded surrogate": (b'{"features":{"city":"\xed\xa0\x80"}}', 400),
    "no UTF-8": (b'{"features":{"city":"\xff"}}', 400),
    "a NUL": ('{"features":{"city":"\\u0000"}}', 200),
    "a million of brackets": ("[" * 1_000_000, 400),
    "100,000 lists": ("[" * 100_000 + "]" * 100_000, 400),
    "100,000 objects": ('{"id":' * 100_000 + "1" + "}" * 100_000, 400),
    "a deep feature": ('{"features":{"city":' + "[" * 500 + "]" * 500 + "}}", 400),
    "a long history": (json.dumps({"features": {"history": ["a"] * 10_001}}), 400),
    "a longest history": (json.dumps({"features": {"history": ["a"] * 10_000}}), 200),
    "200,000 unknown fields": (json.dumps({f"field {n}": n for n in range(200_000)}), 400),
    "200,000 features": (json.dumps({"features": {f"x{n}": n for n in range(200_000)}}), 400),
    "200,000 exclusions": (json.dumps({"id": USER, "exclude": [[]] * 200_000}), 400),
    "the same column often": (json.dumps({"id": USER, "columns": ["title"] * 100}), 200),
    "filter: too deep": (with_filter('{"not":' * 33 + LEAF + "}" * 33), 400),
    "filter: 200 deep": (with_filter('{"and":[' * 200 + LEAF + "]}" * 200), 400),
    "filter: 10,000 deep": (with_filter('{"not":' * 10_000 + LEAF + "}" * 10_000), 400),
    "filter: deep": (with_filter('{"not":' * 31 + LEAF + "}" * 31), 200),
    "filter: 300,000 wide": (with_filter('{"or":[' + ",".join([LEAF] * 300_000) + "]}"), 413),
    "filter: 300,000 faults": (with_filter('{"or":[' + ",".join(["{}"] * 300_000) + "]}"), 400),
    "filter: 300,000 values": (
        with_filter('{"column":"genres","in":[' + ",".join(["{}"] * 300_000) + "]}"),
        400,
    ),
    "filter: a long text": (with_filter('{"column":"%s","equals":1}' % ("x" * 100_000)), 400),
    "filter: none": (with_filter('{"and":[]}'), 400),
    "filter: no bound": (with_filter('{"column":"price","range":{}}'), 400),
    "filter: null": (with_filter('{"column":"price","range":{"gt":null}}'), 400),
    "filter: huge": (with_filter(f'{{"column":"price","equals":{10**30}}}'), 200),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(api: Api, name: str) -> None:
    body, status = HOSTILE[name]
    response = send(api, body)
    assert response.status_code == status, response.text[:500]
    if status != 200:
        assert set(response.json()["error"]) == {"code", "message"}
        assert len(response.content) < 10_000
    assert still_answers(api)


@pytest.mark.parametrize(("direction", "price"), [("i2i", 3.4e38), ("i2u", 3.4e38), ("i2u", -1e30)])
def test_features_that_make_no_finite_vector_are_refused(
    api: Api, direction: str, price: float
) -> None:
    response = api.post(f"/v1/retrieve/{direction}", {"features": {"price": price}})
    assert response.status_code == 400
    assert "expected finite numbers" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "a/b/c;;"])
def test_another_content_type_is_refused(api: Api, kind: str) -> None:
    response = send(api, f'{{"id":{USER}}}', **{"content-type": kind})
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("length", ["20971520", "9" * 40])
@pytest.mark.parametrize("path", ["/v1/retrieve/u2i", "/v1/items", "/v1/models/u2i:predict"])
def test_a_length_that_is_too_large_is_refused_unread(api: Api, path: str, length: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    response = send(api, body(), path, **{"content-length": length})
    assert response.status_code == 413
    error = response.json()["error"]
    assert isinstance(error, str) == path.startswith("/v1/models")
    assert "expected at most 16777216 bytes" in str(error)


@pytest.mark.parametrize("path", ["/v1/retrieve/u2i", "/v1/items", "/v1/models/u2i:predict"])
def test_a_body_of_no_known_length_is_counted(api: Api, path: str) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**20
            yield b" " * 2**20

    response = send(api, body(), path)
    assert response.status_code == 413
    assert sent <= 18 * 2**20
    assert still_answers(api)


@pytest.mark.parametrize("path", ["/v1/retrieve/u2i", "/v1/models/u2i:predict"])
def test_a_body_that_does_not_end_is_given_up(published: Path, path: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    with running_api(published, timeout_s=0.3) as api:
        response = send(api, body(), path)
        assert response.status_code == 504
        assert "the whole of it within 0.3 s" in str(response.json()["error"])
        wait_until(lambda: still_answers(api))


@pytest.mark.parametrize("path", ["/v1/items/%FF%FE", "/v1/items/%00", "/v1/items/" + "a" * 60_000])
def test_hostile_paths(api: Api, path: str) -> None:
    response = api.get(path)
    assert response.status_code == 404
    assert len(response.content) < 10_000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
records = st.dictionaries(
    st.sampled_from(["item_id", "genres", "price", "title", "other"]), values, max_size=5
)


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(items=st.lists(records, max_size=3))
def test_any_record_is_put_in_or_refused(api: Api, items: list[dict[str, Any]]) -> None:
    response = send(api, json.dumps({"items": items}), "/v1/items")
    assert response.status_code in {200, 400}, response.text
    if response.status_code == 200:
        api.post("/v1/items/delete", {"ids": [item["item_id"] for item in items]})


def fuzz(api: Api, *, max_examples: int) -> int:
    """Send what the OpenAPI page allows and what it does not; each answer must be one it has."""
    # Imported here, as it takes a second that runs without the slow tests are spared.
    import schemathesis  # noqa: PLC0415
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415
    from schemathesis.specs.openapi import checks  # noqa: PLC0415

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_dict(api.get("/openapi.json").json())
    modes, n_sent = schemathesis.GenerationMode, 0
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]  # or raises, if the page is wrong
        # Any text is an id in a path, so only a body can be wrong.
        for mode in modes if operation.body else [modes.POSITIVE]:

            @settings(
                max_examples=max_examples,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(mode))
            def check(case: schemathesis.Case[Any]) -> None:
                nonlocal n_sent
                n_sent += 1
                kwargs = case.as_transport_kwargs(base_url="http://server")
                sent = requests.Request(**kwargs).prepare()
                response = api.request(
                    str(sent.method), str(sent.url), content=sent.body, headers=dict(sent.headers)
                )
                case.validate_response(response, checks=wanted)

            check()
    return n_sent


def test_every_answer_is_one_that_the_openapi_page_has(api: Api) -> None:
    assert fuzz(api, max_examples=25) > 250
    assert still_answers(api)


def test_memory_is_steady(published: Path) -> None:
    """What a request leaves behind would show in every round; caches and pools fill in the first.

    The process is that of the tests, so what other tests left may come and go in one round.
    """
    bodies = [body for body, _ in HOSTILE.values() if len(body) < 10**6]
    growths: list[int] = []
    with running_api(published) as api:
        while not growths or growths[-1] > 2**20:
            assert len(growths) < 8, (
                f"400 requests added this many bytes, round by round: {growths}"
            )
            before = resident_bytes()
            for number in range(400):
                send(api, bodies[number % len(bodies)])
            growths.append(resident_bytes() - before)
        assert still_answers(api)


def resident_bytes() -> int:
    """What this process has in memory now."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()
