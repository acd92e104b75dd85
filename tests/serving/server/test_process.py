from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.retriever import Retriever
from serving.server.process import Addresses, serve
from serving.server.runtime.settings import ServerSettings
from tests.patience import PATIENCE_S
from towers.errors import BundleError, ConfigError

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.serving.server.conftest import Shifted

USER = 2**40 + 3

Client = Callable[[httpx.AsyncClient, HealthStub], Awaitable[None]]


def with_server(
    models: Path,
    client: Client,
    *,
    ready: Callable[[Addresses], None] = lambda addresses: None,
    **settings: Any,
) -> Addresses:
    """Serve on free ports, let the client ask, send SIGTERM, and wait for the end."""

    patient = {"timeout_s": PATIENCE_S, "shutdown_s": PATIENCE_S}

    async def running() -> Addresses:
        found: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
        given = ServerSettings(**{"port": 0, "grpc_port": 0, "poll_s": 0.05, **patient, **settings})
        server = asyncio.create_task(serve(models, settings=given, ready=found.set_result))
        server.add_done_callback(lambda ended: found.cancel() if not found.done() else None)
        try:
            addresses = await found
            ready(addresses)
        except asyncio.CancelledError:
            await server
            raise
        async with (
            httpx.AsyncClient(base_url=addresses.rest, timeout=PATIENCE_S) as rest,
            grpc.aio.insecure_channel(addresses.grpc) as channel,
        ):
            try:
                await client(rest, HealthStub(channel))
            finally:
                signal.raise_signal(signal.SIGTERM)
                await asyncio.wait_for(server, PATIENCE_S)
        return addresses

    return asyncio.run(running())


async def until_ready(rest: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await rest.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


def test_a_server_is_alive_at_once_ready_when_a_version_is_loaded_and_tells_its_figures(
    shifted: Shifted, tmp_path: Path
) -> None:
    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        assert (await rest.get("/healthz")).json() == {"status": "ok"}
        unready = await rest.get("/readyz")
        assert (unready.status_code, unready.json()) == (503, {"status": "no version is loaded"})
        asked = HealthCheckRequest()
        assert (await health.Check(asked)).status == HealthCheckResponse.NOT_SERVING
        shifted(tmp_path, 0)
        await until_ready(rest)
        assert (await rest.get("/readyz")).json() == {"status": "ok", "version": 1}
        for service in ("", "tensorflow.serving.PredictionService"):
            asked = HealthCheckRequest(service=service)
            assert (await health.Check(asked)).status == HealthCheckResponse.SERVING
        answer = await rest.post("/v1/retrieve/u2i", json={"id": USER, "k": 3})
        assert answer.json()["version"] == 1
        metrics = await rest.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "fm_recall_version 1.0" in metrics.text
        assert "process_resident_memory_bytes" in metrics.text

    with_server(tmp_path, client)


def test_a_signal_stops_the_server_once_what_is_in_flight_is_answered(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[httpx.Response] = []
    tasks: list[asyncio.Task[None]] = []
    answer, is_asked = Retriever.answer, threading.Event()

    def slowly(self: Retriever, questions: Sequence[Any]) -> Any:
        is_asked.set()
        time.sleep(1)
        return answer(self, questions)

    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        await until_ready(rest)

        async def ask() -> None:
            answers.append(await rest.post("/v1/retrieve/u2i", json={"id": USER, "k": 3}))

        is_asked.clear()
        tasks.append(asyncio.create_task(ask()))
        assert await asyncio.to_thread(is_asked.wait, PATIENCE_S)
        assert not answers

    monkeypatch.setattr(Retriever, "answer", slowly)
    with_server(published, client)
    assert [answer.status_code for answer in answers] == [200]


def test_a_request_that_takes_too_long_does_not_keep_the_server_from_ending(
    published: Path,
) -> None:
    """It never comes to its end."""
    with socket.socket() as connection:

        async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
            connection.connect((rest.base_url.host, rest.base_url.port))
            connection.sendall(b"POST /v1/retrieve/u2i HTTP/1.1\r\nHost: x\r\n")
            connection.sendall(b"Content-Length: 100\r\nContent-Type: application/json\r\n\r\n{")
            await asyncio.sleep(0.1)

        with_server(published, client, shutdown_s=1.0, timeout_s=10 * PATIENCE_S)


def test_a_signal_ends_the_process_though_a_version_is_being_loaded(
    published: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose loader never comes to an end."""
    code = (
        "import pathlib, sys, time; from serving.server import process;"
        "from serving.server.runtime.settings import ServerSettings;"
        "from serving.server.runtime.served_version import Served;"
        "Served.open = lambda *_, **__: print('loading', flush=True) or time.sleep(3600);"
        "process.GRACE_S = 0.5;"
        "process.run(pathlib.Path(sys.argv[1]), journal=pathlib.Path(sys.argv[2]),"
        " settings=ServerSettings(port=0, grpc_port=0, shutdown_s=0.5),"
        " ready=lambda addresses: None)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(published), str(tmp_path / "journal")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "."},
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("name", ["port", "grpc_port"])
def test_a_port_that_is_taken_is_an_error_that_names_it(published: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServerSettings(**{"port": 0, "grpc_port": 0, name: port})
        with pytest.raises(ConfigError, match=rf"^{name}: .*127\.0\.0\.1:{port}, but: address"):
            asyncio.run(serve(published, settings=settings))


def test_two_servers_do_not_share_a_grpc_port(published: Path, tmp_path: Path) -> None:
    started: list[Addresses] = []

    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        port = int(started[0].grpc.rpartition(":")[2])
        with pytest.raises(ConfigError, match="grpc_port"):
            taken = ServerSettings(port=0, grpc_port=port)
            await serve(published, settings=taken, journal=tmp_path)

    with_server(published, client, ready=started.append)


def test_a_journal_that_cannot_be_written_stops_the_start_unless_the_server_only_reads(
    shifted: Shifted, tmp_path: Path
) -> None:
    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        await until_ready(rest)
        answer = await rest.post("/v1/items", json={"items": [{"item_id": "fresh"}]})
        assert answer.status_code == 403, answer.text

    shifted(tmp_path, 0)
    (tmp_path / "journal").touch()  # no folder can be made there
    with pytest.raises(BundleError, match=r"can be written to, but: .*; make it writable"):
        with_server(tmp_path, client)
    with_server(tmp_path, client, read_only=True)


def test_deletes_of_a_journal_that_is_only_read_count(shifted: Shifted, tmp_path: Path) -> None:
    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        await until_ready(rest)
        assert (await rest.get("/v1/items/item%203")).status_code == 404
        assert (await rest.get("/v1/items/item%204")).status_code == 200

    shifted(tmp_path, 0)
    with Journal(tmp_path / "journal") as journal:
        journal.append([list_drafts("item", id_column="item_id", delete=["item 3"])])
    before = {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    with_server(tmp_path, client, read_only=True)
    assert {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()} == before


def test_an_ipv6_address_is_served(published: Path) -> None:
    async def client(rest: httpx.AsyncClient, health: HealthStub) -> None:
        await until_ready(rest)

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert with_server(published, client, host="::1").rest.startswith("http://[::1]:")
