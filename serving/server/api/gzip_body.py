"""ReadGzip: lets the app read compressed bodies, with a limit on what they expand to."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.server.api.error_answers import answer_error
from serving.server.errors import TooLargeError
from towers.errors import QueryError

GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls a stream with a header of gzip's."""
PIECE = 2**18
"""Bytes that are expanded at a time."""
ENCODING, LENGTH = b"content-encoding", b"content-length"


class ReadGzip:
    """ASGI middleware: the app gets a body as if it had not been compressed."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        """Let `app` have bodies that expand to `max_bytes` at most."""
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a `receive` that expands."""
        named = {name: value for name, value in scope.get("headers", ()) if name == ENCODING}
        encoding = named.get(ENCODING, b"identity").strip().lower()
        if scope["type"] != "http" or encoding in {b"identity", b""}:
            await self._app(scope, receive, send)
            return
        if encoding not in {b"gzip", b"x-gzip"}:
            error = HTTPException(415, "Content-Encoding: expected gzip or identity")
            response = await answer_error(Request(scope), error)
            await response(scope, receive, send)
            return
        plain = [pair for pair in scope["headers"] if pair[0] not in {ENCODING, LENGTH}]
        await self._app({**scope, "headers": plain}, self._expanded(receive), send)

    def _expanded(self, receive: Receive) -> Receive:
        """Wrap `receive` up to the end of the body.

        Raises (when it is called):
            TooLargeError: it expands to too much.
            QueryError: it is not what gzip writes.
        """
        body = _Expansion(self._max_bytes)
        pieces: Iterator[bytes] = iter(())
        has_more, is_whole = True, False

        async def expanded() -> Message:
            nonlocal pieces, has_more, is_whole
            while not is_whole:
                piece = next(pieces, None)
                if piece is not None:
                    return {"type": "http.request", "body": piece, "more_body": True}
                if not has_more:
                    body.check_end()
                    is_whole = True
                    return {"type": "http.request", "body": b"", "more_body": False}
                message = await receive()
                if message["type"] != "http.request":
                    return message
                pieces = body.expand(message.get("body", b""))
                has_more = message.get("more_body", False)
            return await receive()

        return expanded


class _Expansion:
    """Expands a body that comes in parts; it may be several members of gzip's."""

    def __init__(self, max_bytes: int) -> None:
        self._room, self._max_bytes = max_bytes, max_bytes
        self._member = zlib.decompressobj(GZIP)
        self._has_any = False

    def expand(self, part: bytes) -> Iterator[bytes]:
        """Expand a part, a piece at a time."""
        is_full = False
        while part or is_full:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
            self._has_any = True
            try:
                piece = self._member.decompress(part, PIECE)
            except zlib.error as error:
                raise QueryError(f"body: expected what gzip writes, but: {error}") from None
            self._room -= len(piece)
            if self._room < 0:
                raise TooLargeError(
                    f"body: expected at most {self._max_bytes} bytes once it is expanded, received "
                    "more; send less in one request"
                )
            has_ended = self._member.eof
            part = self._member.unused_data if has_ended else self._member.unconsumed_tail
            is_full = len(piece) == PIECE and not has_ended  # there may be more without input
            yield piece

    def check_end(self) -> None:
        """Refuse a body that ends within a member."""
        if self._has_any and not self._member.eof:
            raise QueryError("body: expected all of what gzip wrote, received its beginning")
