"""JsonRoute: what every route of the JSON API does, whatever it answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial, wraps
from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from serving.server.api.table_json import json_response
from serving.server.errors import OK, status_of
from serving.server.json_body import check_values, parse
from serving.server.runtime.server_core import SMALL_BYTES, ServerCore
from serving.version.saved_models.names import RANK


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
        fields = self.dependant.body_params
        kind: Any = fields[0].field_info.annotation if fields else None
        model = None if kind is None else TypeAdapter(kind)

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive, model=model)
            status = OK
            try:
                await strict.check()  # FastAPI would call what is wrong with it a fault of the JSON
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

    def __init__(self, scope: Scope, receive: Receive, *, model: TypeAdapter[Any] | None) -> None:
        """Read a body, which is to be a `model`."""
        super().__init__(scope, receive)
        self._model = model

    async def check(self) -> None:
        """Read the body, and refuse one with too many values.

        Raises:
            TooLargeError: there are too many bytes or values.
            DeadlineError: they come too slowly.
        """
        body = await self.body()
        core: ServerCore = self.app.state.core
        check = partial(check_values, body, max_cells=core.settings.max_cells)
        await core.prepare(check, n_bytes=len(body))

    async def json(self) -> Any:
        """Parse the body; a large one on another thread, and as a model if it fits it."""
        body = await self.body()
        core: ServerCore = self.app.state.core
        return await core.prepare(partial(self._parse, body), n_bytes=len(body))

    def _parse(self, body: bytes) -> Any:
        plain = parse(body)
        if self._model is not None and len(body) > SMALL_BYTES:
            with suppress(ValidationError):  # FastAPI says what is wrong
                return self._model.validate_python(plain)
        return plain


def _model_of(request: Request) -> str:
    """What a request is counted as: the direction, or the tower that encodes what it brings."""
    kind = request.url.path.split("/")[2]
    models = {"items": "item_tower", "users": "user_tower"}
    models |= {"explain": "explain", "explorer": "explorer", "recommend": RANK}
    return models.get(kind, str(request.path_params.get("direction")))
