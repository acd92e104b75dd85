"""LimitedProtocol: a connection of uvicorn's that a client cannot hold, or fill, without end."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.server.runtime.settings import ServerSettings


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, with limits on what it leaves open.

    - The head of a request (its first line and its headers) has a largest size, and a time within
      which it must have come.
    - A client that does not read its answer is cut off.
    - There is a largest number of connections, and of requests that wait in one.
    """

    def __init__(self, *args: Any, limits: ServerSettings, **given: Any) -> None:
        """Take what uvicorn gives to a protocol, and the limits."""
        super().__init__(*args, **given)
        self._limits = limits
        self._reads_head = True
        self._ended_one = False
        """Whether a head or a body ended in the piece that is being read."""
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection beyond the largest number, and wait for the first head of others."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come, unless it makes a head too large."""
        if self._is_refused:
            return
        self._ended_one = False
        super().data_received(data)
        if not self._reads_head or self._ended_one:
            return
        self._head_bytes += len(data)
        if self._head_bytes > self._limits.max_header_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Wait for the rest of a head of which the first bytes have come."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Answer a request, unless too many wait."""
        self._reads_head, self._ended_one, self._head_bytes = False, True, 0
        self._stop_timer()
        if len(self.pipeline) >= self._limits.max_pipelined:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
        if not self._is_refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Read a part of a body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the head of the next request."""
        self._reads_head = self._ended_one = True
        if not self._is_refused:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Cut the client off if it does not go on to read."""
        super().pause_writing()
        self._stop_timer()
        self._timer = self.loop.call_later(self._limits.timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on to write."""
        self._stop_timer()
        super().resume_writing()

    def _expect_head(self) -> None:
        self._stop_timer()
        late = HTTPStatus.REQUEST_TIMEOUT
        self._timer = self.loop.call_later(self._limits.header_s, self._refuse, late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with a status, and close the connection; no more of it is read."""
        self._is_refused = True
        self._stop_timer()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close"
        self.transport.write(f"{head}\r\n\r\n".encode())
        self.transport.close()
