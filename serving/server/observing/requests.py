"""What is noted of each request: its name, a line of the access log, and a span of a trace."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.server.access.tokens import WHO
from serving.server.observing.tracing import Tracing

HEADER = "x-request-id"
"""Has the name of a request, in the request and in its answer, over HTTP and gRPC."""
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The name of the request that is being answered; empty outside of one."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""What supervisors ask all the time has no line in the access log."""

ACCESS = logging.getLogger("fm_recall.access")
"""Has a line for each request, where that is asked for."""

_NAME = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def name_of(given: str | None) -> str:
    """The name of a request: the one that it brings, if it is one, else a new one."""
    return given if given is not None and _NAME.fullmatch(given) else uuid4().hex[:16]


@dataclass
class Outcome:
    """What became of a request."""

    status: str = ""
    n_bytes: int = 0


@dataclass(frozen=True)
class Noting:
    """What is noted of requests."""

    access_log: bool = False
    tracing: Tracing | None = None

    @contextmanager
    def request(
        self, surface: str, what: str, *, name: str, headers: Mapping[str, str]
    ) -> Iterator[Outcome]:
        """Note a request while it is answered; whoever answers fills in the outcome.

        Args:
            surface: `http` or `grpc`.
            what: the method and the path.
            name: of the request.
            headers: what it came with, which may name the trace that it is a part of.
        """
        outcome, began = Outcome(), time.perf_counter()
        REQUEST.set(name)
        span = None if self.tracing is None else self.tracing.begin(what, headers=headers)
        try:
            yield outcome
        finally:
            ms = round((time.perf_counter() - began) * 1000, 3)
            if span is not None:
                span.end(surface=surface, status=outcome.status, request=name)
            if self.access_log:
                ACCESS.info(
                    "request",
                    extra={
                        "surface": surface,
                        "what": what,
                        "status": outcome.status,
                        "ms": ms,
                        "bytes": outcome.n_bytes,
                        "who": WHO.get(),
                    },
                )


QUIETLY = Noting()
"""Notes names only."""


class NoteRequests:
    """ASGI middleware, the outermost: notes each request, and answers with its name."""

    def __init__(self, app: ASGIApp, *, noting: Noting) -> None:
        """Note what `app` answers."""
        self._app, self._noting = app, noting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = name_of(headers.get(HEADER))
        noting = QUIETLY if scope["path"] in QUIET else self._noting
        what = f"{scope['method']} {scope['path']}"
        with noting.request("http", what, name=name, headers=headers) as outcome:

            async def named(message: Message) -> None:
                if message["type"] == "http.response.start":
                    outcome.status = str(message["status"])
                    MutableHeaders(scope=message)[HEADER] = name
                outcome.n_bytes += len(message.get("body", b""))
                await send(message)

            await self._app(scope, receive, named)


class AddRequest(logging.Filter):
    """Adds the name of the request to what is logged while it is answered."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        name = REQUEST.get()
        if name:
            record.request = name
        return True
