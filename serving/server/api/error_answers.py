"""Errors as answers: one handler writes all of them, in one shape."""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.server.errors import INTERNAL, shortened, status_of
from serving.server.observing.requests import HEADER, REQUEST
from towers.errors import RecallError

PROBLEMS, LONGEST_PATH = 5, 100
"""How many faults of one request are named, and with how many characters of the way to each."""
TF_SERVING = "/v1/models"
"""Below this path errors have the shape of TF Serving's."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorDetail:
    """What is wrong."""

    code: Annotated[str, Field(description="gRPC's name of the status, such as INVALID_ARGUMENT.")]
    message: Annotated[
        str, Field(description="What, where, what was expected and received, what to do.")
    ]


@dataclass(frozen=True)
class ErrorBody:
    """The body of every answer that is no 2xx."""

    error: ErrorDetail


_DESCRIPTIONS: dict[int | str, str] = {
    400: "The request cannot be answered; the message says why.",
    401: "The request does not show a token that counts.",
    403: "The token does not give the right, the request came by another name or page, or the "
    "server only reads.",
    404: "There is no such id.",
    413: "The body, or what it asks for, is larger than the server allows.",
    429: "Too many requests wait. Try again after `Retry-After` seconds.",
    503: "No version is loaded, or the server is shutting down.",
    504: "There was no answer in time.",
    507: "The server's disk takes no change; nothing has changed.",
    "default": "Any other error.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in _DESCRIPTIONS.items()
}
"""The errors of every route, for OpenAPI."""


def handle_errors(app: FastAPI) -> None:
    """Let the app answer every error that is raised while it answers a request."""
    for kind in (
        RequestValidationError,
        HTTPException,
        RecallError,
        ClientDisconnect,
        Exception,
    ):
        app.add_exception_handler(kind, answer_error)


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error: as TF Serving does below /v1/models, elsewhere as `ErrorBody`."""
    status, message = status_of(error), _message(request, error)
    if status == INTERNAL:
        message = f"internal error; the server's log says more of the request {REQUEST.get()}"
        if isinstance(error, RecallError):  # any other is raised further, and logged there
            LOG.error("a request failed", exc_info=error)
    message = shortened(message)
    body: Any = {"error": {"code": status.grpc.name, "message": message}}
    if request.url.path.startswith(TF_SERVING):
        body = {"error": message}
    waits = status.http in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    headers = {HEADER: REQUEST.get()} | ({"Retry-After": "1"} if waits else {})
    return Response(
        json.dumps(body),  # in ASCII, so that whatever a message quotes can be sent
        status.http,
        headers=headers | dict(getattr(error, "headers", None) or {}),
        media_type="application/json",
    )


def _message(request: Request, error: Exception) -> str:
    """Say what is wrong with a request."""
    if isinstance(error, HTTPException):
        return f"{error.detail}: {request.method} {request.url.path}; see /docs"
    if not isinstance(error, RequestValidationError):
        return str(error)
    if isinstance(error.body, bytes):
        return "body: expected JSON with Content-Type: application/json, received another"
    problems = [_problem(problem) for problem in error.errors()[:PROBLEMS]]
    return "; ".join(dict.fromkeys(problems))


def _problem(problem: Mapping[str, Any]) -> str:
    """Say one thing that does not fit the models, and where it is."""
    where = ".".join(str(part) for part in problem["loc"])
    if len(where) > LONGEST_PATH:
        where = f"{where[: LONGEST_PATH // 2]}...{where[-LONGEST_PATH // 2 :]}"
    if problem["type"] == "json_invalid":
        return f"body: expected JSON, but at byte {problem['loc'][-1]}: {problem['ctx']['error']}"
    if problem["type"] in {"missing", "missing_argument"}:
        return f"{where}: required, but not given; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}, received {reprlib.repr(problem.get('input'))}"
