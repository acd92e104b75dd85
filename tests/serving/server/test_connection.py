"""Clients that send without end, or slowly, or nothing at all, are cut off; others are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn

from serving.server.connection import LimitedProtocol
from serving.server.runtime.settings import ServerSettings
from tests.patience import PATIENCE_S

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n"
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Coroutine[Any, Any, None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with as many bytes as the path says, once the body is there."""
    while (await receive()).get("more_body"):
        pass
    size = int(scope["path"][1:] or 2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for start in range(0, size, 2**16):
        body = b"x" * min(2**16, size - start)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[int]:
    http = partial(LimitedProtocol, limits=ServerSettings(**limits))
    config = uvicorn.Config(
        app,
        port=0,
        http=http,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve(None))
    async with asyncio.timeout(PATIENCE_S):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.force_exit = server.should_exit = True
        await running


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def with_client(client: Client, **limits: Any) -> None:
    async def test() -> None:
        async with serving(**limits) as port, connected(port) as (reader, writer):
            await asyncio.wait_for(client(reader, writer, port), PATIENCE_S)

    asyncio.run(test())


async def answers(port: int) -> bool:
    async with connected(port) as (reader, writer):
        writer.write(ASK + b"Connection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("start", [b"GET /", ASK + b"X-Long: "])
def test_a_head_without_end_is_refused_before_it_is_read(start: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        writer.write(start)
        sent = 0
        try:
            for _ in range(1600):  # 100 MiB
                writer.write(b"x" * 2**16)
                sent += 2**16
                await writer.drain()
        except ConnectionError:
            pass
        assert sent < 20 * 2**20
        assert await answers(port)

    with_client(client, max_header_bytes=2**16)


def test_the_refusal_is_said() -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        writer.write(ASK + b"X: " + b"x" * 2000)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")

    with_client(client, max_header_bytes=1000)


def test_a_body_in_one_piece_with_its_head_is_no_large_head() -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        body = b"y" * 50_000
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
        for _ in range(2):
            writer.write(head + body)
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    with_client(client, max_header_bytes=1000)


@pytest.mark.parametrize("sent", [b"", ASK, ASK + b"\r\n" + ASK[:7]])
def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        writer.write(sent)
        assert b"HTTP/1.1 408 " in await reader.read()

    with_client(client, header_s=0.2)


def test_connections_beyond_the_largest_number_are_refused_and_others_go_on() -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        async with connected(port), connected(port) as (other, _):
            assert (await other.read()).startswith(b"HTTP/1.1 503 ")
            writer.write(ASK + b"\r\n")
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")

    with_client(client, max_connections=2)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(ASK.replace(b"/", b"/100000000", 1) + b"\r\n")
        await asyncio.sleep(1.0)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        with suppress(ConnectionError):
            while piece := await reader.read(2**20):
                received += len(piece)
        assert received < 50_000_000

    with_client(client, timeout_s=0.3)


def test_requests_that_wait_in_one_connection_are_limited() -> None:
    async def client(reader: asyncio.StreamReader, writer: Any, port: int) -> None:
        writer.write((ASK + b"\r\n") * 200)
        assert b"HTTP/1.1 429 " in await reader.read()
        assert await answers(port)

    with_client(client, max_pipelined=5)
