"""The server as a process, under load, while versions come and go and are rolled back."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from serving.version.store import Store
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from tests.serving.conftest import World
    from tests.serving.server.conftest import Shifted

K = 5
N_CLIENTS = 4
"""Of each kind."""

Best = Callable[..., list[str]]
Spoil = Callable[[Path, int], None]


@dataclass
class Server:
    """A server process, and its log so far."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, message: str) -> list[dict[str, Any]]:
        """What it has logged under a message."""
        *lines, _ = self.log.read_text().split("\n")  # the last one is being written
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line[:1] == "{"]
        return [event for event in events if event["message"] == message]

    async def event(self, message: str, *, n: int = 1) -> dict[str, Any]:
        """Wait for the n-th event of a message."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := self.events(message)) < n:
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)
        return found[n - 1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`fm-recall serve` on `models` below the test's folder."""
    log = tmp_path / "log"
    script = "from pipelines.cli.main import main; main()"
    options = ["--port", "0", "--grpc-port", "0", "--poll", "0.1", "--log-format", "json"]
    options += ["--timeout", str(PATIENCE_S)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", script, "serve", str(tmp_path / "models"), *options],
            stderr=file,
        )
    try:
        yield Server(process, log)
    finally:
        process.kill()
        process.wait()


@dataclass
class Load:
    """Clients that ask without a pause, and check each answer against the version it names."""

    expected: Mapping[tuple[int, int], list[str]]
    """The ids of the answer, by the user's row and the version's shift."""
    features: list[dict[str, Any]]
    """By the user's row, a batch of one."""
    ids: list[int]
    shifts: dict[int, int] = field(default_factory=dict)
    """By version; which are published."""
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many answers, by the surface and the version."""
    over: bool = False

    def check(self, surface: str, version: int, row: int, ids: list[str]) -> None:
        """An answer is that of the version it names, all of it."""
        assert ids == self.expected[row, self.shifts[version]]
        self.answered[surface, version] += 1

    async def retrieve(self, rest: httpx.AsyncClient, row: int) -> None:
        """Ask the retrieval API."""
        answer = await rest.post("/v1/retrieve/u2i", json={"id": self.ids[row], "k": K})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        ids = [result["id"] for result in body["results"]]
        self.check("retrieve", body["version"], row, ids)

    async def predict_rest(self, rest: httpx.AsyncClient, row: int) -> None:
        """Ask TF Serving's REST API, whose answer names no version: it is that of one of them."""
        inputs = {**self.features[row], "k": [K], "exclude": [[""]]}
        body = {"signature_name": "top_k", "inputs": inputs}
        answer = await rest.post("/v1/models/u2i:predict", json=body)
        assert answer.status_code == 200, answer.text
        ids = answer.json()["outputs"]["ids"][0]
        assert ids in [self.expected[row, shift] for shift in self.shifts.values()]
        self.answered["rest", 0] += 1

    async def predict_grpc(self, stub: PredictionServiceStub, row: int) -> None:
        """Ask TF Serving's gRPC API."""
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "u2i", "top_k"
        for name, values in self.features[row].items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values, tf.string))
        request.inputs["k"].CopyFrom(tf.make_tensor_proto([K], tf.int32))
        request.inputs["exclude"].CopyFrom(tf.make_tensor_proto([[""]], tf.string))
        response = await stub.Predict(request, timeout=PATIENCE_S)
        ids = [text.decode() for text in response.outputs["ids"].string_val]
        self.check("grpc", response.model_spec.version.value, row, ids)

    async def run(self, ask: Callable[[Any, int], Awaitable[None]], client: Any) -> None:
        """Ask for one user after the other until it is over."""
        asked = 0
        while not self.over:
            await ask(client, asked % len(self.ids))
            asked += 1


@pytest.mark.slow
def test_ten_swaps_and_two_refused_versions_under_load_cost_no_request_and_mix_no_answer(
    server: Server,
    shifted: Shifted,
    damage: Spoil,
    outdate: Spoil,
    world: World,
    best: Best,
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    rows = range(20)
    load = Load(
        {(row, shift): best(row, shift=shift, k=K) for row in rows for shift in range(12)},
        [world.features("user", row) for row in rows],
        world.sides["user"].ids.to_numpy()[:20].tolist(),
    )

    async def publish(shift: int, spoil: Spoil | None = None) -> None:
        version = Store(models).next_version()
        load.shifts[version] = shift
        await asyncio.to_thread(shifted, models, shift, activate=spoil is None)
        if spoil is not None:
            spoil(models, version)

    async def change_versions() -> None:
        """Ten swaps: of new versions, two of them after one that is refused, and of rollbacks."""
        await server.event("version swapped in", n=1)
        for swap in range(1, 11):
            if swap in {4, 8}:
                await publish(11, damage if swap == 4 else outdate)
                await server.event("version refused", n=swap // 4)
            if swap in {5, 9}:
                Store(models).rollback(to=swap // 4)
            else:
                await publish(swap)
            await server.event("version swapped in", n=swap + 1)
            current = Store(models).current() or 0
            async with asyncio.timeout(PATIENCE_S):
                while not all(load.answered[name, current] for name in ("retrieve", "grpc")):
                    await asyncio.sleep(0.02)
        load.over = True

    async def test() -> None:
        await publish(0)
        addresses = await server.event("started")
        async with (
            httpx.AsyncClient(base_url=addresses["rest"], timeout=PATIENCE_S) as rest,
            grpc.aio.insecure_channel(addresses["grpc"]) as channel,
        ):
            await server.event("version swapped in")
            stub = PredictionServiceStub(channel)
            async with asyncio.TaskGroup() as group:
                for _ in range(N_CLIENTS):
                    group.create_task(load.run(load.retrieve, rest))
                    group.create_task(load.run(load.predict_rest, rest))
                    group.create_task(load.run(load.predict_grpc, stub))
                await change_versions()
            metrics = (await rest.get("/metrics")).text
        assert "fm_recall_loads_total 11.0" in metrics
        assert "fm_recall_refused_versions_total 2.0" in metrics

    (tmp_path / "models").mkdir(exist_ok=True)
    asyncio.run(test())
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_S) == 0
    versions = {event["version"] for event in server.events("version swapped in")}
    for surface in ("retrieve", "grpc"):
        assert {version for name, version in load.answered if name == surface} == versions
    assert load.answered["rest", 0] > len(versions)
    unloaded = {event["version"] for event in server.events("version unloaded")}
    assert len(unloaded) >= len(versions) - 2
