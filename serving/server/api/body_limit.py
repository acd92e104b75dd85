"""Limits on what a request may send: how many bytes, and how slowly."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.server.api.error_answers import answer_error
from serving.server.errors import DeadlineError, TooLargeError

LONGEST_NUMBER = 18
"""A Content-Length of more digits is too large, and is not even converted to an integer."""


class LimitBody:
    """ASGI middleware that refuses a body that is too large or too slow.

    Where the Content-Length is too large, the body is not read. A body of unknown length is counted
    while it comes; once it is too large, reading it raises the error.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float) -> None:
        """Let `app` have bodies of up to `max_bytes` that are there after `timeout_s`."""
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a limited `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if len(length) > LONGEST_NUMBER or int(length) > self._max_bytes:
            error = self._too_large(f"{length[:LONGEST_NUMBER]} bytes")
            response = await answer_error(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Receive:
        """Wrap `receive` up to the end of the body.

        Raises (when it is called):
            TooLargeError: there are too many bytes.
            DeadlineError: they come too slowly.
        """
        room = self._max_bytes
        ends = asyncio.get_running_loop().time() + self._timeout_s
        is_whole = False

        async def limited() -> Message:
            nonlocal room, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise DeadlineError(
                    f"body: expected the whole of it within {self._timeout_s} s; send it faster, "
                    "or less"
                ) from None
            room -= len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if room < 0:
                raise self._too_large("more")
            return message

        return limited

    def _too_large(self, received: str) -> TooLargeError:
        return TooLargeError(
            f"body: expected at most {self._max_bytes} bytes, received {received}; send less in "
            "one request"
        )
