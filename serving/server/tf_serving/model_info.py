"""What TF Serving tells about a model: the state of its versions, and its signatures."""

from __future__ import annotations

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server.runtime.server_core import ServerCore
from serving.server.tf_serving.tensor_specs import Signature
from towers.errors import QueryError

_METHODS = {"classify": "classification", "regress": "regression"}


def model_statuses(
    core: ServerCore, model: str, *, version: int | None = None, label: str | None = None
) -> GetModelStatusResponse:
    """Say what has become of the versions of a model, or of one of them.

    Raises:
        NotFoundError: no such model, or no such version of it.
        QueryError: no such label.
    """
    response = GetModelStatusResponse()
    for found in core.versions.statuses(model, version=version, label=label):
        status = response.model_version_status.add(
            version=found.version, state=ModelVersionStatus.State.Value(found.state)
        )
        status.status.error_code = error_codes_pb2.Code.Value(found.error_code)
        status.status.error_message = found.error_message
    return response


def model_metadata(
    core: ServerCore, model: str, *, version: int | None = None, label: str | None = None
) -> tuple[ModelSpec, SignatureDefMap]:
    """Describe the signatures of a model, and name the version that they are of.

    Raises:
        NotFoundError: no such model, or no such version of it.
        QueryError: no such label.
    """
    served = core.versions.find(model, version=version, label=label)
    spec = ModelSpec(name=model)
    spec.version.value = served.version
    signatures = SignatureDefMap()
    for name, definition in served.signatures[model].items():
        signatures.signature_def[name].CopyFrom(definition)
    return spec, signatures


def refuse_method(method: str, signature: Signature) -> QueryError:
    """Say, in TF Serving's words, that a signature is not for `classify` or `regress`."""
    return QueryError(
        f"Expected {_METHODS[method]} signature method_name to be tensorflow/serving/{method}. "
        f"Was: {signature.method}"
    )
