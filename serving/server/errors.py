"""What a request can be refused for, and the status that says so over HTTP and over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import grpc
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from towers.errors import (
    IndexUnavailableError,
    QueryError,
    ReadOnlyError,
    RecallError,
    StorageError,
    UnknownIdError,
)


class ServerError(RecallError):
    """A request that the server refuses."""


class NotFoundError(ServerError):
    """A model, a version or a label that is not here."""


class UnauthenticatedError(ServerError):
    """A request that does not show who sends it."""


class ForbiddenError(ServerError):
    """A request that its sender may not make."""


class ConflictError(ServerError):
    """A change that what is there now does not allow."""


class TooLargeError(ServerError):
    """A body or a batch above the server's limit."""


class OverloadedError(ServerError):
    """So many requests wait that the server takes no more."""


class UnavailableError(ServerError):
    """No version is loaded, or the server is shutting down."""


class DeadlineError(ServerError):
    """An answer that did not come in time."""


@dataclass(frozen=True)
class Status:
    """How a request ended, in both protocols."""

    http: int
    grpc: grpc.StatusCode


OK = Status(200, grpc.StatusCode.OK)
INTERNAL = Status(500, grpc.StatusCode.INTERNAL)
"""The status of every error that is not listed below: a fault of the server."""
_INVALID = Status(400, grpc.StatusCode.INVALID_ARGUMENT)

_STATUSES: tuple[tuple[type[Exception], Status], ...] = (
    (UnknownIdError, Status(404, grpc.StatusCode.NOT_FOUND)),
    (QueryError, _INVALID),
    (RequestValidationError, _INVALID),
    (UnauthenticatedError, Status(401, grpc.StatusCode.UNAUTHENTICATED)),
    (ForbiddenError, Status(403, grpc.StatusCode.PERMISSION_DENIED)),
    (ReadOnlyError, Status(403, grpc.StatusCode.PERMISSION_DENIED)),
    (NotFoundError, Status(404, grpc.StatusCode.NOT_FOUND)),
    (ConflictError, Status(409, grpc.StatusCode.FAILED_PRECONDITION)),
    (TooLargeError, Status(413, grpc.StatusCode.INVALID_ARGUMENT)),
    (OverloadedError, Status(429, grpc.StatusCode.RESOURCE_EXHAUSTED)),
    (ClientDisconnect, Status(499, grpc.StatusCode.CANCELLED)),
    (IndexUnavailableError, Status(503, grpc.StatusCode.UNAVAILABLE)),
    (UnavailableError, Status(503, grpc.StatusCode.UNAVAILABLE)),
    (StorageError, Status(507, grpc.StatusCode.RESOURCE_EXHAUSTED)),
    (DeadlineError, Status(504, grpc.StatusCode.DEADLINE_EXCEEDED)),
)
LONGEST_MESSAGE = 1000
"""Characters of an error's message; a header of HTTP/2, where gRPC has it, has no room for many
more."""

_OF_HTTP: dict[int, grpc.StatusCode] = {
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
}
"""Of errors that the HTTP layer raises itself; all others are `INVALID_ARGUMENT`."""


def shortened(message: str) -> str:
    """Cut off a message that has become long by what it quotes."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE - 3]}..."


def status_of(error: BaseException) -> Status:
    """The status of an error; `INTERNAL` where the fault is the server's.

    Log such an error, and tell the client the status only: the message may name files.
    """
    if isinstance(error, HTTPException):
        return Status(error.status_code, _OF_HTTP.get(error.status_code, _INVALID.grpc))
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), INTERNAL)
