"""Clients of a server in another process: one at a time, at a steady rate, and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

INT64 = 9
Call = Callable[[int], Awaitable[object]]
"""Sends the i-th request and awaits the answer."""


@dataclass(frozen=True)
class Load:
    """What a number of clients got."""

    seconds: Sequence[float]
    """Of each request."""
    rate: float
    """Requests a second."""


def predict_requests(features: Mapping[str, Sequence[Any]]) -> list[Any]:
    """TF Serving's requests for one user each."""
    return [_predict_request(one) for one in _each(features)]


def predict_bodies(features: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """The same as JSON."""
    return [orjson.dumps({"instances": [one]}) for one in _each(features)]


def retrieve_bodies(features: Mapping[str, Sequence[Any]], *, k: int) -> list[bytes]:
    """Requests to the retrieval API for one user each."""
    return [orjson.dumps({"features": one, "k": k}) for one in _each(features)]


@asynccontextmanager
async def grpc_calls(address: str, requests: Sequence[Any]) -> Any:
    """Send requests by gRPC."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        yield lambda i: stub.Predict(requests[i % len(requests)])


@asynccontextmanager
async def rest_calls(url: str, path: str, bodies: Sequence[bytes]) -> Any:
    """Send requests by REST."""
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=30, headers=headers) as client:

        async def call(i: int) -> None:
            answer = await client.post(path, content=bodies[i % len(bodies)])
            answer.raise_for_status()

        yield call


async def one_at_a_time(call: Call, n: int) -> list[float]:
    """Send `n` requests, each when the last is answered; seconds each."""
    return [await _timed(call, i) for i in range(n)]


async def steadily(call: Call, *, rate: float, n: int) -> list[float]:
    """Send `n` requests at a steady rate, answered or not; seconds each."""
    start = perf_counter()
    tasks = []
    for i in range(n):
        await asyncio.sleep(max(0.0, start + i / rate - perf_counter()))
        tasks.append(asyncio.create_task(_timed(call, i)))
    return list(await asyncio.gather(*tasks))


async def at_once(call: Call, *, clients: int, seconds: float) -> Load:
    """Let a number of clients send requests, each when its last is answered."""
    stop = perf_counter() + seconds
    numbers = cycle(range(10_000))

    async def client() -> list[float]:
        times = []
        while perf_counter() < stop:
            times.append(await _timed(call, next(numbers)))
        return times

    start = perf_counter()
    found = await asyncio.gather(*(client() for _ in range(clients)))
    times = [one for some in found for one in some]
    return Load(times, len(times) / (perf_counter() - start))


async def _timed(call: Call, i: int) -> float:
    start = perf_counter()
    await call(i)
    return perf_counter() - start


def _each(features: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*features.values(), strict=True):
        yield dict(zip(features, values, strict=True))


def _predict_request(one: Mapping[str, Any]) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "u2i"
    for name, value in one.items():
        values = np.array([value])
        tensor = request.inputs[name]
        tensor.dtype = INT64
        for size in values.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.int64_val.extend(values.ravel().tolist())
    return request
