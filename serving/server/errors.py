"""What a request can be refused for, and the status that says so over HTTP and over gRPC."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from towers.errors import IndexUnavailableError, QueryError, RecallError


class ServerError(RecallError):
    """A request that the server refuses."""


class NotFoundError(ServerError):
    """A model, a version, a label or an id that is not here."""


class ConflictError(ServerError):
    """A change that what is there now does not allow."""


class TooLargeError(ServerError):
    """A body or a batch above the server's limit."""


class OverloadedError(ServerError):
    """More requests wait than the server lets wait."""


class UnavailableError(ServerError):
    """No version is loaded, or the server is shutting down."""


class DeadlineError(ServerError):
    """An answer that did not come in time."""


@dataclass(frozen=True)
class Status:
    """How a request ended, in both protocols."""

    http: int
    grpc: grpc.StatusCode


INTERNAL = Status(500, grpc.StatusCode.INTERNAL)
"""Of an error that nobody caused on purpose."""

_STATUSES: tuple[tuple[type[RecallError], Status], ...] = (
    (QueryError, Status(400, grpc.StatusCode.INVALID_ARGUMENT)),
    (NotFoundError, Status(404, grpc.StatusCode.NOT_FOUND)),
    (ConflictError, Status(409, grpc.StatusCode.FAILED_PRECONDITION)),
    (TooLargeError, Status(413, grpc.StatusCode.INVALID_ARGUMENT)),
    (OverloadedError, Status(429, grpc.StatusCode.RESOURCE_EXHAUSTED)),
    (IndexUnavailableError, Status(503, grpc.StatusCode.UNAVAILABLE)),
    (UnavailableError, Status(503, grpc.StatusCode.UNAVAILABLE)),
    (DeadlineError, Status(504, grpc.StatusCode.DEADLINE_EXCEEDED)),
)


def status_of(error: BaseException) -> Status:
    """The status of an error; `INTERNAL` for one that is no client's doing, which is to be logged.

    A message of the latter may name files of the server: tell the client no more than the status.
    """
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), INTERNAL)
