"""Listeners: the HTTP and the gRPC server, bound, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc
import uvicorn
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from serving.server.app import build_app
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.grpc_predict import add_services
from towers.errors import ConfigError

BACKLOG = 2048
"""Connections that wait to be accepted."""

KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than clients and balancers keep theirs, or they
would ask on one that has just been closed."""

NOT_SERVING, SERVING = HealthCheckResponse.NOT_SERVING, HealthCheckResponse.SERVING


class RestListener:
    """uvicorn, on a port of its own."""

    def __init__(self, settings: ServerSettings) -> None:
        """Bind the port.

        Raises:
            ConfigError: the server cannot listen on it.
        """
        self._settings = settings
        self._socket = _bind(settings.host, settings.port)
        self.port: int = self._socket.getsockname()[1]
        """The port, also where a free one was asked for."""

    async def start(self, core: ServerCore) -> None:
        """Accept requests."""
        config = uvicorn.Config(
            build_app(core),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=logging.getLogger().isEnabledFor(logging.DEBUG),
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(self._settings.shutdown_s),
        )
        self._server = _Server(config)
        self._running = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._running.done():
                await self._running
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Accept no more, and finish what has come within `shutdown_s`."""
        self._server.should_exit = True
        await self._running

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


class GrpcListener:
    """gRPC, on a port of its own, with the standard health service."""

    def __init__(self, settings: ServerSettings) -> None:
        """Bind the port.

        Raises:
            ConfigError: the server cannot listen on it.
        """
        self._settings = settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # or a second server on the port would get half of it
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ],
            # A request waits with one source at least.
            maximum_concurrent_rpcs=settings.max_queue + settings.max_batch,
        )
        try:
            address = f"{bracketed(settings.host)}:{settings.grpc_port}"
            self.port: int = self._server.add_insecure_port(address)
            """The port, also where a free one was asked for."""
        except RuntimeError:
            raise _not_bound("grpc_port", settings.host, settings.grpc_port) from None

    async def start(self, core: ServerCore) -> None:
        """Accept requests; the health service says `SERVING` once a version is loaded."""
        self._health = health.HealthServicer()
        add_services(self._server, core)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", NOT_SERVING)
        await self._server.start()
        self._telling = asyncio.create_task(self._tell(core))

    async def stop(self) -> None:
        """Accept no more, and finish what has come within `shutdown_s`."""
        self._telling.cancel()
        with suppress(asyncio.CancelledError):
            await self._telling
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.shutdown_s)

    async def _tell(self, core: ServerCore) -> None:
        await core.ready()
        for service in ("", SERVICE_NAME, "tensorflow.serving.PredictionService"):
            await self._health.set(service, SERVING)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals stop both listeners."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bracketed(host: str) -> str:
    """The host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _not_bound("port", host, port, why=error.strerror or str(error)) from None


def _not_bound(setting: str, host: str, port: int, *, why: str = "address in use") -> ConfigError:
    return ConfigError(
        f"{setting}: expected to listen on {bracketed(host)}:{port}, but: {why.lower()}; stop what "
        "listens there, or choose another"
    )
