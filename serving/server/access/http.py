"""CheckAccess: lets a request over HTTP come to the app only if its sender may ask it."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.server.access.tokens import WHO, Right, Tokens
from serving.server.api.error_answers import answer_error
from serving.server.errors import ForbiddenError, UnauthenticatedError
from serving.server.runtime.settings import ServerSettings, is_loopback

OPEN = frozenset({"/healthz", "/readyz"})
"""What a supervisor asks, without a token and by any address."""
FRESH = ("/v1/items", "/v1/users")
ADMIN = ("/metrics", "/v1/explorer/versions", "/v1/explorer/compare")
READING = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class CheckAccess:
    """ASGI middleware, the outermost.

    A request must come to a name that is the server's own, so that a page whose name has been
    bound to this address (DNS rebinding) is refused; from a page of the server itself, if from a
    page; and with a token, if there are any, that gives the right that it needs.
    """

    def __init__(
        self, app: ASGIApp, *, settings: ServerSettings, tokens: Tokens | None, takes_writes: bool
    ) -> None:
        """Let `app` answer those who may ask; what changes something, only with `takes_writes`."""
        self._app, self._tokens, self._takes_writes = app, tokens, takes_writes
        self._origins = frozenset(settings.origins)
        self._hosts: frozenset[str] | None = None
        """The names that the server answers to; None: any."""
        if settings.hosts or is_loopback(settings.host):
            self._hosts = frozenset({*settings.hosts, settings.host, *LOOPBACK})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and have it answered."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            who = self._check(scope)
        except (ForbiddenError, UnauthenticatedError) as error:
            response = await answer_error(Request(scope), error)
            if isinstance(error, UnauthenticatedError):
                response.headers["WWW-Authenticate"] = 'Basic realm="fm-recall"'
            await response(scope, receive, send)
            return
        WHO.set(who)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> str:
        """Answers whose request it is.

        Raises:
            ForbiddenError: it comes to another name or from another page, or may not be made.
            UnauthenticatedError: it shows no token that counts.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise ForbiddenError(
                "Host: expected a name that the server answers to, received another; ask by one "
                "of them, or start the server with --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host and origin not in self._origins:
            raise ForbiddenError(
                "Origin: expected a page of this server, received another; start the server with "
                "--allow-origin"
            )
        right = right_of(scope["method"], scope["path"])
        if right == "write" and not self._takes_writes:
            raise ForbiddenError(
                "changes: expected at the port that the server has for them (--write-port), "
                "received at another"
            )
        if self._tokens is None:
            return WHO.get()
        return self._tokens.check(headers.get("authorization"), right)


def right_of(method: str, path: str) -> Right:
    """The right that a request needs."""
    path = path.lower()
    if method not in READING and path.startswith(FRESH):
        return "write"
    return "admin" if path.startswith(ADMIN) else "read"


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
