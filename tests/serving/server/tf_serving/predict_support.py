"""Servers of TF Serving's protocols, raw features to ask them, and the SavedModels' answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import scann  # noqa: F401 - its operations
import tensorflow as tf
from numpy.typing import NDArray

from serving.server.app import build_app
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.grpc_predict import add_services
from serving.server.tf_serving.predictor import Predictor
from tests.patience import PATIENCE_S
from towers.directions import DIRECTIONS

Arrays = dict[str, NDArray[Any]]

MODELS = ("user_tower", "item_tower", *DIRECTIONS)


class Asker:
    """Asks a predictor on a core's loop."""

    def __init__(self, core: ServerCore, loop: asyncio.AbstractEventLoop) -> None:
        self.predictor = Predictor(core)
        self._loop = loop

    def ask(
        self, model: str, inputs: Arrays, *, signature: str = "", outputs: Sequence[str] = ()
    ) -> Any:
        """The outputs by name."""
        target = self.predictor.find(model, signature)
        work = self.predictor.predict(target, inputs, outputs=outputs)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def asker(models: Path, **limits: Any) -> Iterator[Asker]:
    """A predictor on a models directory."""
    with hosted(models, **limits) as running:
        yield Asker(*running)


class RestClient:
    """Calls the REST API of a core on another thread; a server's fault is raised."""

    def __init__(self, core: ServerCore, loop: asyncio.AbstractEventLoop) -> None:
        transport = httpx.ASGITransport(build_app(core))
        self.core = core
        self._loop = loop
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send bytes as they are, and anything else as JSON, with NaN and infinities as Python's
        own writer has them."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        work = self._client.request(method, path, content=content)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def predict(self, model: str, body: Any) -> httpx.Response:
        return self.request("POST", f"/v1/models/{model}:predict", body)


@contextmanager
def rest_client(models: Path, **limits: Any) -> Iterator[RestClient]:
    """A client of the REST API."""
    with hosted(models, **limits) as (core, loop):
        yield RestClient(core, loop)


@contextmanager
def grpc_channel(models: Path, **limits: Any) -> Iterator[grpc.Channel]:
    """A channel to a server with both services."""

    async def start(core: ServerCore) -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server()
        add_services(server, core)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"

    with hosted(models, **limits) as (core, loop):
        server, address = asyncio.run_coroutine_threadsafe(start(core), loop).result(60)
        try:
            with grpc.insecure_channel(address) as channel:
                yield channel
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(60)


@contextmanager
def hosted(models: Path, **limits: Any) -> Iterator[tuple[ServerCore, asyncio.AbstractEventLoop]]:
    """A core on a loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    try:
        core = ServerCore(models, settings=_settings(**limits))
        run(core.__aenter__())
        run(core.versions.settled())
        yield core, loop
        run(core.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def raw_features(world: Any, model: str, *, size: int, seed: int = 0) -> Arrays:
    """Raw features of `size` sources of a model, unknown and missing ones among them."""
    random = np.random.default_rng(seed)
    names = [*world.sides["item"].ids.to_numpy()[:40], "item that is new", ""]
    if model in {"user_tower", "u2i", "u2u"}:
        return {
            "history": _texts(random, names, (size, 5)),
            "city": _texts(random, ["a", "b", "nowhere", ""], (size,)),
        }
    price = random.normal(size=size).astype(np.float32)
    price[random.random(size) < 0.3] = np.nan
    return {
        "item_id": _texts(random, names, (size,)),
        "genres": _texts(random, ["x", "y", "z", ""], (size, 3)),
        "price": price,
    }


def chosen(world: Any, model: str, *, size: int, seed: int = 0) -> Arrays:
    """Inputs of `top_k`, beside the features."""
    random = np.random.default_rng(seed)
    ids = world.sides[DIRECTIONS[model].target].ids.to_numpy()
    exclude = ids[random.integers(0, len(ids), (size, 6))]
    return {"k": random.integers(1, 20, size, dtype=np.int32), "exclude": exclude}


def saved_model(models: Path, model: str, signature: str, inputs: Mapping[str, Any]) -> Arrays:
    """What the SavedModel itself answers; text as str."""
    call = _load(next(models.glob(f"**/models/{model}/*"))).signatures[signature]
    found = call(**{name: tf.constant(values) for name, values in inputs.items()})
    return {name: _decoded(tensor.numpy()) for name, tensor in found.items()}


def check_same(received: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare two answers: ids exactly, scores and vectors closely."""
    assert {*received} == {*expected}
    for name, values in expected.items():
        found = np.asarray(received[name])
        assert found.shape == values.shape
        if name == "ids":
            assert found.tolist() == values.tolist()
        else:
            np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5)


def _settings(**limits: Any) -> ServerSettings:
    return ServerSettings(
        **{"poll_s": 0.05, "timeout_s": PATIENCE_S, "port": 0, "grpc_port": 0, **limits}
    )


@cache
def _load(path: Path) -> Any:
    return tf.saved_model.load(str(path))


def _texts(random: np.random.Generator, values: list[str], shape: tuple[int, ...]) -> Any:
    return np.array(values, dtype=object)[random.integers(0, len(values), shape)]


def _decoded(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != object:
        return values
    texts = np.empty(values.size, object)
    texts[:] = [value.decode() for value in values.ravel()]
    return texts.reshape(values.shape)
