from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.server.api_support import Api, running_api

LIMIT = 2**20
BODY = json.dumps({"id": 2**40 + 3, "k": 3}).encode()
PREDICT = json.dumps({"inputs": {"history": [["item 1"]], "city": ["a"]}}).encode()
U2I = "/v1/retrieve/u2i"


@pytest.fixture(scope="module")
def api(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    journal = tmp_path_factory.mktemp("journal")
    with running_api(published, journal=journal, max_body_bytes=LIMIT) as running:
        yield running


def send(api: Api, body: bytes, path: str = U2I, encoding: str = "gzip") -> httpx.Response:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    return api.request("POST", path, content=body, headers=headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (U2I, BODY),
        ("/v1/models/u2i:predict", PREDICT),
        ("/v1/items/delete", b'{"ids": ["item 9"]}'),
        ("/v1/explorer/find", b'{"side": "item", "text": "Title"}'),
    ],
)
def test_a_compressed_body_is_read_as_a_plain_one(api: Api, path: str, body: bytes) -> None:
    plain = send(api, body, path, "identity")
    assert plain.status_code in {200, 404, 405}
    if plain.is_success:
        sent = send(api, gzip.compress(body), path)
        assert sent.status_code == 200, sent.text
    if "retrieve" in path:
        assert sent.json() == plain.json()


def test_members_one_after_another_and_parts_of_any_size_are_one_body(api: Api) -> None:
    whole = gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]) + gzip.compress(b" " * 300_000)

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = api.request("POST", U2I, content=parts(), headers=headers)
    assert answer.json() == send(api, BODY, encoding="identity").json()


@pytest.mark.parametrize("size", [LIMIT - len(BODY), LIMIT + 1, 1000 * LIMIT])
def test_what_a_body_expands_to_has_a_limit(api: Api, size: int) -> None:
    body = gzip.compress(BODY + b" " * size, 9) if size <= LIMIT + 1 else bomb(size)
    answer = send(api, body)
    assert answer.status_code == (200 if size < LIMIT else 413), answer.text
    if size >= LIMIT:
        assert "once it is expanded" in answer.json()["error"]["message"]


def bomb(size: int) -> bytes:
    """Members of 100 MB of spaces."""
    return gzip.compress(b" " * (size // 10), 9) * 10


@pytest.mark.parametrize("path", [U2I, "/v1/models/u2i:predict"])
def test_what_is_no_gzip_is_refused(api: Api, path: str) -> None:
    whole = gzip.compress(BODY)
    for body in (whole[:-9], whole[:5], b"{}", whole + b"x", b"\x1f\x8b"):
        answer = send(api, body, path)
        assert answer.status_code == 400
        assert "gzip" in str(answer.json()["error"])
    answer = send(api, whole, path, "br")
    assert answer.status_code == 415
    assert "expected gzip or identity" in str(answer.json()["error"])
