"""TF Serving's REST API: the status, the metadata and the predictions of models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from google.protobuf import json_format
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from serving.server.errors import OK, status_of
from serving.server.json_body import check_values
from serving.server.runtime.server_core import ServerCore
from serving.server.tf_serving.json_request import JsonRequest
from serving.server.tf_serving.json_tensors import Format, dump
from serving.server.tf_serving.model_info import model_metadata, model_statuses, refuse_method
from serving.server.tf_serving.predictor import (
    Predictor,
    Target,
    UnknownSignatureError,
)
from towers.errors import QueryError

VERSION_HEADER = "X-Model-Version"
"""Says which version an answer comes from."""

_WHICH = (
    r"(?i:/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
)
_POST = re.compile(_WHICH + r":(?P<method>classify|regress|predict))")
_GET = re.compile(_WHICH + r"(?P<metadata>/metadata)?)")
_NO_MODEL = re.compile(r"(?i:/v1/models(/(versions|labels)/[^/:]+)?(/metadata)?)")
_LARGEST_VERSION = 2**63 - 1


def routes(core: ServerCore) -> list[BaseRoute]:
    """Answer everything below `/v1/models`, by `core`."""
    route = Route("/v1/models{rest:path}", ModelsEndpoint(core))
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    return [route]


class ModelsEndpoint:
    """An ASGI application."""

    def __init__(self, core: ServerCore) -> None:
        """Answer by `core`."""
        self._core = core
        self._predictor = Predictor(core)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RecallError: the request is refused; the app then answers `{"error": ...}`.
        """
        request = Request(scope, receive)
        model, status = "", OK
        try:
            address = _Address.parse(request)
            model = address.model
            response = await self._respond(address, request)
        except Exception as error:
            status = status_of(error)
            raise
        finally:
            self._core.metrics.count(surface="rest", model=model, code=status.grpc.name)
        await response(scope, receive, send)

    async def _respond(self, address: _Address, request: Request) -> Response:
        """Do what the address says."""
        if address.method == "status":
            return self._status(address)
        if address.method == "metadata":
            return self._metadata(address)
        body = await request.body()
        if address.method == "predict":
            return await self._predict(address, body)
        parse = partial(self._parse, body)
        signature = (await self._core.prepare(parse, n_bytes=len(body))).signature
        target = self._predictor.find(address.model, signature, **address.choice)
        raise refuse_method(address.method, target.signature)

    async def _predict(self, address: _Address, body: bytes) -> Response:
        """Answer raw features with vectors or candidates."""
        read = partial(self._read, address, body)
        target, form, inputs = await self._core.prepare(read, n_bytes=len(body))
        outputs = await self._predictor.predict(target, inputs)
        write = partial(dump, outputs, form=form)
        answer = await self._core.prepare(write, n_bytes=sum(x.nbytes for x in outputs.values()))
        return _json(answer, version=target.served.version)

    def _read(
        self, address: _Address, body: bytes
    ) -> tuple[Target, Format, dict[str, NDArray[Any]]]:
        """Read the body of a request to predict. Any thread may call it.

        Raises:
            QueryError: it is not what the model takes.
            TooLargeError: it has too many values.
        """
        document = self._parse(body)
        try:
            target = self._predictor.find(address.model, document.signature, **address.choice)
        except UnknownSignatureError as error:
            raise QueryError(
                f'Serving signature name: "{error.name}" not found in signature def'
            ) from None
        form, inputs = document.read(target.signature, settings=self._core.settings)
        return target, form, inputs

    def _parse(self, body: bytes) -> JsonRequest:
        """Read a body. Any thread may call it.

        Raises:
            QueryError, TooLargeError: as `_read`.
        """
        check_values(body, max_cells=self._core.settings.max_cells)
        return JsonRequest.parse(body)

    def _status(self, address: _Address) -> Response:
        """Say what has become of the versions of a model."""
        statuses = model_statuses(self._core, address.model, **address.choice)
        text = json_format.MessageToJson(statuses, always_print_fields_with_no_presence=True)
        return _json(text.encode())

    def _metadata(self, address: _Address) -> Response:
        """Describe the signatures of a model."""
        spec, signatures = model_metadata(self._core, address.model, **address.choice)
        document = {
            "model_spec": _fields(spec),
            "metadata": {"signature_def": _fields(signatures)},
        }
        return _json(orjson.dumps(document), version=spec.version.value)


@dataclass(frozen=True)
class _Address:
    """What a method and a path ask for."""

    model: str
    method: str
    """`status`, `metadata`, `predict`, `classify` or `regress`."""
    choice: dict[str, Any]
    """`version` or `label`, where one is named."""

    @classmethod
    def parse(cls, request: Request) -> _Address:
        """Read a request's first line.

        Raises:
            QueryError: the server has no such method or path.
        """
        path = request.scope["path"]
        patterns = {"POST": _POST, "GET": _GET}
        pattern = patterns.get(request.method)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            if request.method == "GET" and _NO_MODEL.fullmatch(path):
                raise QueryError("Missing model name in request.")
            raise QueryError(f"Malformed request: {request.method} {path}")
        found = match.groupdict()
        method = found.get("method") or ("metadata" if found["metadata"] else "status")
        choice: dict[str, Any] = {}
        if found["label"]:
            choice["label"] = found["label"]
        if found["version"]:
            choice["version"] = _version(found["version"])
        return cls(found["model"], method.lower(), choice)


def _version(digits: str) -> int:
    """Read a version.

    Raises:
        QueryError: it is not a 64-bit integer.
    """
    if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
        raise QueryError(f"Failed to convert version: {digits} to numeric.")
    return int(digits)


def _fields(message: Any) -> Any:
    """A proto as TF Serving writes it as JSON: fields have the proto's names, empty ones too."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _json(body: bytes, *, version: int | None = None) -> Response:
    """Make a response of JSON."""
    headers = {} if version is None else {VERSION_HEADER: str(version)}
    return Response(body, headers=headers, media_type="application/json")
