"""What every route of the JSON API has in common: strict JSON in, and one shape of errors out."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

import grpc
import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.server.errors import INTERNAL, Status, status_of
from towers.errors import QueryError

INVALID = status_of(QueryError())
"""Of a request that does not fit what the OpenAPI page says."""

PROBLEMS, LONGEST_PATH, LONGEST_MESSAGE = 5, 100, 2000
"""How many faults of one request are named, with how many characters of the way to each, and how
long the message may become by what it quotes."""


class Strict(BaseModel):
    """Part of a request: nothing unknown, nothing coerced but an integer into a float."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_no_unknown(cls, raw: Any) -> Any:
        """Name one unknown field, as naming a million takes seconds."""
        if isinstance(raw, dict):
            for name in raw:
                if name not in cls.model_fields:
                    raise ValueError(f"unknown field {name!r}; remove it or check its spelling")
        return raw


class ErrorDetail(BaseModel):
    """What is wrong."""

    code: str = Field(description="gRPC's name of the status, such as INVALID_ARGUMENT.")
    message: str = Field(description="What, where, what was expected and received, what to do.")


class ErrorBody(BaseModel):
    """The body of every answer that is no 2xx."""

    error: ErrorDetail


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's errors for OpenAPI: those of `codes`, and `default` for all others."""
    known = {
        400: "The request is none that can be answered; the message says why.",
        404: "There is no such id.",
        413: "The body, or what it asks for, is larger than the server allows.",
        429: "Too many requests wait. Try again after `Retry-After` seconds.",
        503: "No version is loaded, or the server is shutting down.",
        504: "There was no answer in time.",
    }
    found: dict[int | str, dict[str, Any]] = {
        code: {"model": ErrorBody, "description": known[code]} for code in codes
    }
    return found | {"default": {"model": ErrorBody, "description": "Any other error."}}


class JsonRoute(APIRoute):
    """A route that reads JSON strictly, counts its requests and answers errors in one shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            path, code = request.url.path, "OK"
            try:
                await strict.body()  # here, where what is wrong with it is answered
                return await handle(strict)
            except RequestValidationError as error:
                code = INVALID.grpc.name
                return error_response(INVALID, _describe(error), path=path)
            except ClientDisconnect:
                code = grpc.StatusCode.CANCELLED.name
                return Response()  # which nobody reads
            except Exception as error:
                status = status_of(error)
                code = status.grpc.name
                if status == INTERNAL:
                    raise
                return error_response(status, str(error), path=path)
            finally:
                request.app.state.host.metrics.count(
                    surface="retrieve", model=_model_of(request), code=code
                )

        return handler


class _StrictRequest(Request):
    """A request whose JSON is JSON: no NaN, no lone surrogates, no nesting without end."""

    async def json(self) -> Any:
        """Parse the body."""
        return orjson.loads(await self.body())


def error_response(status: Status, message: str, *, path: str) -> Response:
    """Answer an error: as TF Serving does below /v1/models, elsewhere as `ErrorBody`."""
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}..."
    body: Any = {"error": {"code": status.grpc.name, "message": message}}
    if path.startswith("/v1/models"):
        body = {"error": message}
    waits = status.http in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return Response(
        json.dumps(body),  # in ASCII, so that whatever a message quotes can be sent
        status.http,
        headers={"Retry-After": "1"} if waits else None,
        media_type="application/json",
    )


def http_status(error: HTTPException) -> Status:
    """The status of an error that the HTTP layer raises itself."""
    codes: dict[int, grpc.StatusCode] = {
        HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    }
    return Status(error.status_code, codes.get(error.status_code, INVALID.grpc))


def _describe(error: RequestValidationError) -> str:
    """Say what does not fit, a fault after the other."""
    if isinstance(error.body, bytes):
        return "body: expected JSON with Content-Type: application/json, received another"
    problems = [_problem(problem) for problem in error.errors()[:PROBLEMS]]
    return "; ".join(dict.fromkeys(problems))


def _problem(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if len(where) > LONGEST_PATH:
        where = f"{where[: LONGEST_PATH // 2]}...{where[-LONGEST_PATH // 2 :]}"
    if problem["type"] == "json_invalid":
        return f"body: expected JSON, but at byte {problem['loc'][-1]}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{where}: required, but not given; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}, received {reprlib.repr(problem.get('input'))}"


def _model_of(request: Request) -> str:
    """What a request is counted as: the direction, or the tower that encodes what it brings."""
    kind = request.url.path.split("/")[2]
    models = {"items": "item_tower", "users": "user_tower"}
    models |= {"explain": "explain", "explorer": "explorer"}
    return models.get(kind, str(request.path_params.get("direction")))
