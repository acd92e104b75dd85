"""JsonRoute: what every route of the JSON API does, whatever it answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from serving.server.api.table_json import json_response
from serving.server.errors import OK, status_of


class JsonRoute(APIRoute):
    """A route that reads strict JSON, writes its answer as it is, and counts its requests.

    An answer has the type that the function says, which a type checker has looked at: it is
    described for OpenAPI by that type, and not validated again for each request.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        """Answer requests for `path` with what the coroutine function `endpoint` returns."""

        @wraps(endpoint)
        async def answer(**values: Any) -> Response:
            found = await endpoint(**values)
            return found if isinstance(found, Response) else json_response(found)

        super().__init__(path, answer, **given)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            status = OK
            try:
                await strict.body()  # FastAPI would call what is wrong with it a fault of the JSON
                return await handle(strict)
            except Exception as error:
                status = status_of(error)
                raise
            finally:
                request.app.state.core.metrics.count(
                    surface="retrieve", model=_model_of(request), code=status.grpc.name
                )

        return handler


class _StrictRequest(Request):
    """A request whose JSON is JSON: no NaN, no lone surrogates, no nesting without end."""

    async def json(self) -> Any:
        """Parse the body."""
        return orjson.loads(await self.body())


def _model_of(request: Request) -> str:
    """What a request is counted as: the direction, or the tower that encodes what it brings."""
    kind = request.url.path.split("/")[2]
    models = {"items": "item_tower", "users": "user_tower"}
    models |= {"explain": "explain", "explorer": "explorer"}
    return models.get(kind, str(request.path_params.get("direction")))
