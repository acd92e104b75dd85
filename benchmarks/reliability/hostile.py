"""Requests that nobody should send, to both surfaces: no fault of the server, and it goes on."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx

from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.world import World, serving

PATHS = (
    *("/v1/retrieve/u2i", "/v1/retrieve/i2i/batch", "/v1/items", "/v1/items/delete", "/v1/explain"),
    *("/v1/models/u2i:predict", "/v1/models/user_tower:predict", "/v1/explorer/compare"),
)
BODIES = (
    b"",
    b"null",
    b"[" * 100_000,
    b'{"id":' * 10_000,
    b'{"id": 1e999}',
    b'{"features": {"history": [[]]}}',
    b'{"id": 1, "k": 1000000000}',
    b'{"sources": [{}]}',
    b'{"ids": [null]}',
    b'{"items": [{}]}',
    b'{"inputs": {"history": [[1], [1, 2]]}}',
    b'{"instances": [' + b"{}," * 5000 + b"{}]}",
    b'{"id": 1, "where": ' + b'{"not":' * 5000 + b"1" + b"}" * 5000 + b"}",
    json.dumps({"features": {"history": list(range(10_000))}}).encode(),
)
METHODS = (
    *("PredictionService/Predict", "PredictionService/GetModelMetadata"),
    *("PredictionService/Classify", "PredictionService/MultiInference"),
    *("ModelService/GetModelStatus", "ModelService/HandleReloadConfigRequest"),
)
SERVER_ERROR = 500
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)


def run_hostile(world: World, folder: Path, *, requests: int, seed: int = 0) -> list[Outcome]:
    """Send hostile and random requests over HTTP and gRPC."""
    draw = random.Random(seed)
    rest = Outcome("hostile REST", "requests without a 5xx, after which the server answers")
    calls = Outcome("hostile gRPC", "calls without a fault of the server")
    with serving(world.copy(folder), folder / "journal") as server:
        with httpx.Client(base_url=server.rest, timeout=60) as client:
            for path, body, headers in _requests(draw, requests):
                status = client.post(path, content=body, headers=headers).status_code
                alive = client.get("/healthz").is_success and server.process.poll() is None
                rest.check(
                    status < SERVER_ERROR and alive, f"{path} {body[:60]!r}: {status}, {alive=}"
                )
        with grpc.insecure_channel(server.grpc) as channel:
            for number in range(requests):
                method = METHODS[number % len(METHODS)]
                body = draw.randbytes(draw.choice([0, 1, 10, 1000, 100_000]))
                code = _call(channel, method, body)
                calls.check(code not in FAULTS, f"{method} {body[:30]!r}: {code}")
    return [rest, calls]


def _requests(draw: random.Random, n: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    for number in range(n):
        path = PATHS[number % len(PATHS)]
        body = BODIES[number // len(PATHS) % len(BODIES)]
        if number >= len(PATHS) * len(BODIES):
            body = _mutated(draw, body)
        headers = {"Content-Type": "application/json"}
        if number % 5 == 0:
            body = gzip.compress(body)[: draw.choice([None, 9])]
            headers["Content-Encoding"] = "gzip"
        yield path, body, headers


def _mutated(draw: random.Random, body: bytes) -> bytes:
    """Some bytes changed, doubled or gone."""
    changed = bytearray(body[:2000] or b"{}")
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(changed))
        changed[place : place + draw.randint(0, 2)] = draw.randbytes(draw.randint(1, 3))
    return bytes(changed)


def _call(channel: grpc.Channel, method: str, body: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(f"/tensorflow.serving.{method}")(body, timeout=60)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
