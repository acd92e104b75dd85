"""Listeners: the HTTP and the gRPC server, bound, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import grpc
import uvicorn
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from serving.server.access.grpc import CheckToken
from serving.server.access.tokens import Tokens
from serving.server.app import build_app
from serving.server.connection import LimitedProtocol
from serving.server.observing.requests import QUIETLY, Noting
from serving.server.ports import BACKLOG, bind, bracketed, not_bound
from serving.server.runtime.server_core import ServerCore
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.grpc_predict import add_services
from towers.errors import ConfigError

NOT_SERVING, SERVING = HealthCheckResponse.NOT_SERVING, HealthCheckResponse.SERVING


class RestListener:
    """uvicorn, on a port of its own."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        tokens: Tokens | None = None,
        writes: bool = False,
        noting: Noting = QUIETLY,
    ) -> None:
        """Bind the port; with `tokens`, only those who show one are answered.

        With `writes`, the port is the one that is for changes; `noting` says what is noted of
        requests.

        Raises:
            ConfigError: the server cannot listen on it, or its certificate cannot be used.
        """
        self._settings, self._tokens, self._noting = settings, tokens, noting
        self._takes_writes = writes or settings.write_port is None
        _check_certificate(settings)
        name = "write_port" if writes else "port"
        port = (settings.write_port or 0) if writes else settings.port
        self._socket = bind(settings.host, port, shared=settings.workers > 1, name=name)
        self.port: int = self._socket.getsockname()[1]
        """The port, also where a free one was asked for."""

    async def start(self, core: ServerCore) -> None:
        """Accept requests."""
        config = uvicorn.Config(
            build_app(
                core,
                tokens=self._tokens,
                takes_writes=self._takes_writes,
                noting=self._noting,
            ),
            ssl_certfile=self._settings.tls_certificate,
            ssl_keyfile=self._settings.tls_key,
            http=partial(LimitedProtocol, limits=self._settings),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=logging.getLogger().isEnabledFor(logging.DEBUG),
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=self._settings.idle_s,
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

    def __init__(
        self,
        settings: ServerSettings,
        *,
        tokens: Tokens | None = None,
        noting: Noting = QUIETLY,
    ) -> None:
        """Bind the port; with `tokens`, only those who show one are answered.

        `noting` says what is noted of requests.

        Raises:
            ConfigError: the server cannot listen on it.
        """
        self._settings, self._noting = settings, noting
        self._server = grpc.aio.server(
            options=[
                # or a second server on the port would get half of it
                ("grpc.so_reuseport", int(settings.workers > 1)),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", settings.max_header_bytes),
                ("grpc.server_handshake_timeout_ms", math.ceil(settings.header_s * 1000)),
                ("grpc.max_connection_idle_ms", settings.idle_s * 1000),
                ("grpc.max_concurrent_streams", settings.max_connections),
            ],
            interceptors=[] if tokens is None else [CheckToken(tokens)],
            # A request waits with one source at least.
            maximum_concurrent_rpcs=settings.max_queue + settings.max_batch,
        )
        try:
            address = f"{bracketed(settings.host)}:{settings.grpc_port}"
            credentials = _credentials(settings)
            self.port: int = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
            """The port, also where a free one was asked for."""
        except RuntimeError:
            raise not_bound("grpc_port", settings.host, settings.grpc_port) from None

    async def start(self, core: ServerCore) -> None:
        """Accept requests; the health service says `SERVING` once a version is loaded."""
        self._health = health.HealthServicer()
        add_services(self._server, core, noting=self._noting)
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
        await core.versions.ready()
        for service in ("", SERVICE_NAME, "tensorflow.serving.PredictionService"):
            await self._health.set(service, SERVING)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals stop both listeners."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _check_certificate(settings: ServerSettings) -> None:
    """Refuse a certificate that cannot be used.

    Raises:
        ConfigError: it cannot.
    """
    if settings.tls_certificate is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"TLS: expected a certificate and its key as PEM in {settings.tls_certificate} and "
            f"{settings.tls_key}, but: {error}"
        ) from None


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """What TLS over gRPC needs; None without TLS."""
    if settings.tls_key is None or settings.tls_certificate is None:
        return None
    pair = settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
    return grpc.ssl_server_credentials([pair])
