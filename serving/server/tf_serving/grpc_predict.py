"""TF Serving's gRPC services: PredictionService and ModelService, by the official protos."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from serving.server.errors import INTERNAL, shortened, status_of
from serving.server.json_body import VALUES
from serving.server.observing.requests import HEADER, QUIETLY, Noting, name_of
from serving.server.runtime.server_core import SMALL_BYTES, ServerCore
from serving.server.tf_serving.model_info import model_metadata, model_statuses, refuse_method
from serving.server.tf_serving.predictor import (
    Arrays,
    Predictor,
    Target,
    UnknownSignatureError,
    check_inputs,
)
from serving.server.tf_serving.proto_fields import check_fields
from serving.server.tf_serving.proto_tensors import read_tensor, write_tensor
from towers.errors import QueryError, RecallError

SIGNATURE_DEF = "signature_def"
"""The only field of metadata that TF Serving has."""

LOG = logging.getLogger(__name__)

Answer = Callable[[Any], Awaitable[Message]]
Call = Callable[[bytes], Awaitable[tuple[grpc.StatusCode, str, bytes]]]
"""Answers a request's proto with a response's.

Raises:
    RecallError: it cannot be answered.
"""


class UnimplementedError(QueryError):
    """A method that this server does not have."""


def add_services(server: grpc.aio.Server, core: ServerCore, *, noting: Noting = QUIETLY) -> None:
    """Register both services, which answer by `core`; `noting` says what is noted of requests."""
    service = _Services(core)
    methods: dict[str, dict[str, tuple[type[Message], Answer]]] = {
        "PredictionService": {
            "Predict": (PredictRequest, service.predict),
            "GetModelMetadata": (GetModelMetadataRequest, service.metadata),
            "Classify": (ClassificationRequest, service.classify),
            "Regress": (RegressionRequest, service.regress),
            "MultiInference": (MultiInferenceRequest, service.infer),
        },
        "ModelService": {
            "GetModelStatus": (GetModelStatusRequest, service.status),
            "HandleReloadConfigRequest": (ReloadConfigRequest, service.reload),
        },
    }
    for name, answers in methods.items():
        handlers = {
            method: _named(f"{name}/{method}", noting, _handler(core, *answer))
            for method, answer in answers.items()
        }
        server.add_registered_method_handlers(f"tensorflow.serving.{name}", handlers)


class _Services:
    """What the methods answer."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core
        self._predictor = Predictor(core)

    async def predict(self, request: PredictRequest) -> PredictResponse:
        """Answer raw features with vectors or candidates."""
        spec, prepare = request.model_spec, self._core.prepare
        read = partial(self._read, request)
        target, inputs = await prepare(read, n_bytes=request.ByteSize())
        outputs = await self._predictor.predict(target, inputs, outputs=request.output_filter)
        response = PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = target.served.version
        response.model_spec.signature_name = target.signature.name
        for name, values in outputs.items():
            write = partial(write_tensor, values, response.outputs[name])
            await prepare(write, n_bytes=values.nbytes)
        return response

    def _read(self, request: PredictRequest) -> tuple[Target, Arrays]:
        """Read a request to predict. Any thread may call it.

        Raises:
            QueryError: it is not what the model takes.
            TooLargeError: it has too many values.
        """
        spec, settings = request.model_spec, self._core.settings
        target = self._predictor.find(spec.name, spec.signature_name, **_choice(spec))
        specs = target.signature.inputs
        check_inputs(target.signature, request.inputs)
        inputs = {
            name: read_tensor(proto, specs[name], settings=settings)
            for name, proto in request.inputs.items()
        }
        return target, inputs

    async def metadata(self, request: GetModelMetadataRequest) -> Message:
        """Describe the signatures of a model."""
        if not request.metadata_field:
            raise QueryError("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise QueryError(f"Metadata field {field} is not supported")
        spec = request.model_spec
        found, signatures = model_metadata(self._core, spec.name, **_choice(spec))
        response = GetModelMetadataResponse(model_spec=found)
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    async def status(self, request: GetModelStatusRequest) -> Message:
        """Say what has become of the versions of a model."""
        spec = request.model_spec
        return model_statuses(self._core, spec.name, **_choice(spec))

    async def classify(self, request: ClassificationRequest) -> Message:
        """Refuse: no signature is for this."""
        raise self._refusal("classify", request.model_spec)

    async def regress(self, request: RegressionRequest) -> Message:
        """Refuse: no signature is for this."""
        raise self._refusal("regress", request.model_spec)

    async def infer(self, request: MultiInferenceRequest) -> Message:
        """Refuse: no signature is for this."""
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        raise self._refusal("classify", spec)

    async def reload(self, request: ReloadConfigRequest) -> Message:
        """Refuse: what is served is decided by what is published."""
        raise UnimplementedError(
            "HandleReloadConfigRequest: the models are those of the models directory that the "
            "server was started with; publish a version, or roll back, and it is loaded"
        )

    def _refusal(self, method: str, spec: ModelSpec) -> QueryError:
        target = self._predictor.find(spec.name, spec.signature_name, **_choice(spec))
        return refuse_method(method, target.signature)


def _named(what: str, noting: Noting, call: Call) -> grpc.RpcMethodHandler:
    """Make a method of a call, which is noted, and ends with the name of the request."""

    async def named(raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        name = name_of(metadata.get(HEADER))
        context.set_trailing_metadata(((HEADER, name),))
        with noting.request("grpc", what, name=name, headers=metadata) as outcome:
            code, message, response = await call(raw)
            outcome.status, outcome.n_bytes = code.name, len(response)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, shortened(message))
        return response

    return grpc.unary_unary_rpc_method_handler(named)


def _handler(core: ServerCore, kind: type[Message], answer: Answer) -> Call:
    """Make a call of an answer: it ends with the status of an error, and is counted."""

    async def call(raw: bytes) -> tuple[grpc.StatusCode, str, bytes]:
        model, code, message = "", grpc.StatusCode.CANCELLED, ""
        try:
            request = await core.prepare(partial(_parse, core, kind, raw), n_bytes=len(raw))
            model = request.model_spec.name if hasattr(request, "model_spec") else ""
            response = await answer(request)
            code = grpc.StatusCode.OK
            return code, message, bytes(response.SerializeToString())
        except RecallError as error:
            code, message = _describe(error)
        except Exception:
            LOG.exception("a gRPC request failed")
            code, message = INTERNAL.grpc, "internal error"
        finally:
            core.metrics.count(surface="grpc", model=model, code=code.name)
        return code, message, b""

    return call


def _parse(core: ServerCore, kind: type[Message], raw: bytes) -> Any:
    """Read a request.

    Raises:
        QueryError: the bytes are not such a request.
        TooLargeError: it has too many values.
    """
    if len(raw) > SMALL_BYTES:
        check_fields(kind, raw, most=VALUES * core.settings.max_cells)
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise QueryError(f"expected a {kind.DESCRIPTOR.full_name}, received {error}") from None


def _choice(spec: ModelSpec) -> dict[str, Any]:
    """The version or the label that a request names; empty where it names neither.

    Raises:
        QueryError: it names no model.
    """
    if not spec.name:
        raise QueryError("ModelSpec has no name specified.")
    chosen = spec.WhichOneof("version_choice")
    if chosen == "version":
        return {"version": spec.version.value}
    return {"label": spec.version_label} if chosen else {}


def _describe(error: RecallError) -> tuple[grpc.StatusCode, str]:
    """The status of an error, and what the client may be told of it."""
    if isinstance(error, UnknownSignatureError):
        return grpc.StatusCode.FAILED_PRECONDITION, str(error)
    if isinstance(error, UnimplementedError):
        return grpc.StatusCode.UNIMPLEMENTED, str(error)
    status = status_of(error)
    if status is not INTERNAL:
        return status.grpc, str(error)
    LOG.error("a gRPC request failed", exc_info=error)
    return status.grpc, "internal error"
