from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from tests.patience import PATIENCE_S
from tests.serving.server.tf_serving.predict_support import (
    MODELS,
    Arrays,
    check_same,
    chosen,
    grpc_channel,
    raw_features,
    saved_model,
)
from towers.directions import DIRECTIONS


@pytest.fixture(scope="module")
def channel(published: Path) -> Iterator[grpc.Channel]:
    with grpc_channel(published, max_k=20, max_batch=8) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel: grpc.Channel) -> Any:
    return ModelServiceStub(channel)


def request(model: str, inputs: Arrays, **spec: Any) -> PredictRequest:
    made = PredictRequest(model_spec=specification(model, **spec))
    for name, values in inputs.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(values, shape=values.shape))
    return made


def specification(model: str, *, version: int | None = None, **spec: Any) -> ModelSpec:
    made = ModelSpec(name=model, **spec)
    if version is not None:
        made.version.value = version
    return made


def outputs(response: Any) -> Arrays:
    found = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
    if found.get("ids", np.empty(0)).dtype == object:
        texts = [[id.decode() for id in ids] for ids in found["ids"]]
        found["ids"] = np.array(texts, object).reshape(found["ids"].shape)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_the_saved_models(
    world: Any, published: Path, stub: Any, model: str
) -> None:
    for signature in ("serving_default", "top_k")[: 2 if model in DIRECTIONS else 1]:
        inputs = raw_features(world, model, size=3)
        if signature == "top_k":
            inputs |= chosen(world, model, size=3)
        response = stub.Predict(
            request(model, inputs, signature_name=signature), timeout=PATIENCE_S
        )
        check_same(outputs(response), saved_model(published, model, signature, inputs))
        assert response.model_spec == specification(model, version=1, signature_name=signature)


def test_the_outputs_wanted_can_be_named(world: Any, stub: Any) -> None:
    asked = request("u2i", raw_features(world, "u2i", size=1))
    asked.output_filter.append("scores")
    assert [*stub.Predict(asked).outputs] == ["scores"]


@pytest.mark.parametrize("spec", [{"version": 1}, {"version_label": "current"}])
def test_versions_can_be_named(world: Any, stub: Any, models: Any, spec: dict[str, Any]) -> None:
    response = stub.Predict(request("u2i", raw_features(world, "u2i", size=1), **spec))
    assert response.model_spec == specification("u2i", version=1, signature_name="serving_default")
    asked = GetModelStatusRequest(model_spec=specification("u2i", **spec))
    assert [s.version for s in models.GetModelStatus(asked).model_version_status] == [1]


def test_metadata(stub: Any) -> None:
    asked = GetModelMetadataRequest(
        model_spec=ModelSpec(name="i2u"), metadata_field=["signature_def"]
    )
    response = stub.GetModelMetadata(asked)
    assert response.model_spec == specification("i2u", version=1)
    found = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert {*found.signature_def["top_k"].inputs} == {"item_id", "genres", "price", "k", "exclude"}


def test_status(models: Any) -> None:
    found = models.GetModelStatus(GetModelStatusRequest(model_spec=ModelSpec(name="user_tower")))
    (status,) = found.model_version_status
    assert (status.version, status.state) == (1, ModelVersionStatus.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")


TEXT = np.array(["a"], object)
FEATURES: Arrays = {"city": TEXT, "history": np.empty((1, 0), object)}
NOTHING = np.empty((1, 0), object)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def with_filter(name: str) -> PredictRequest:
    asked = request("u2i", FEATURES)
    asked.output_filter.append(name)
    return asked


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (PredictRequest(), INVALID, "ModelSpec has no name specified."),
        (
            request("x", FEATURES),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(x)",
        ),
        (
            request("u2i", FEATURES, version=7),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(u2i, 7)",
        ),
        (request("u2i", FEATURES, version=-7), grpc.StatusCode.NOT_FOUND, "Servable not found"),
        (
            request("u2i", FEATURES, version_label="x"),
            INVALID,
            "Unrecognized servable version label: x",
        ),
        (
            request("u2i", FEATURES, signature_name="best"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "best" not found.',
        ),
        (
            request("u2i", {}, signature_name="__saved_model_init_op"),
            INVALID,
            "Batching Run() input tensors must have at least one row",
        ),
        (request("u2i", {"city": TEXT}), INVALID, "input size does not match signature: 1!=2"),
        (
            request("u2i", FEATURES | {"city": np.array([1])}),
            INVALID,
            "Expected input city to be string but get int64.",
        ),
        (
            request("u2i", FEATURES | {"history": TEXT}),
            INVALID,
            "Expected input history to have shape [-1,-1] but get [1]",
        ),
        (
            request("u2i", {name: values[:0] for name, values in FEATURES.items()}),
            INVALID,
            "Batching Run() input tensors must have at least one row",
        ),
        (
            request("u2i", FEATURES | {"city": TEXT.repeat(9)}),
            INVALID,
            "Expected input city to have at most 8 rows",
        ),
        (with_filter("vector"), INVALID, "output tensor alias not found in signature: vector"),
        (
            request(
                "u2i",
                FEATURES | {"k": np.array([0], np.int32), "exclude": NOTHING},
                signature_name="top_k",
            ),
            INVALID,
            "k: expected at least 1 and at most 20, received 0",
        ),
    ],
)
def test_requests_at_fault_are_refused(
    stub: Any, asked: PredictRequest, code: grpc.StatusCode, message: str
) -> None:
    check_refused(stub.Predict, asked, code, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "x"], "Metadata field x is not supported"),
    ],
)
def test_only_signatures_are_described(stub: Any, fields: list[str], message: str) -> None:
    asked = GetModelMetadataRequest(model_spec=ModelSpec(name="u2i"), metadata_field=fields)
    check_refused(stub.GetModelMetadata, asked, INVALID, message)


def test_no_model_classifies_or_regresses(stub: Any) -> None:
    spec = ModelSpec(name="u2i")
    message = "Expected classification signature method_name to be tensorflow/serving/classify. Was"
    check_refused(stub.Classify, ClassificationRequest(model_spec=spec), INVALID, message)
    multiple = MultiInferenceRequest()
    multiple.tasks.add(model_spec=spec)
    check_refused(stub.MultiInference, multiple, INVALID, message)
    message = "Expected regression signature method_name to be tensorflow/serving/regress. Was"
    check_refused(stub.Regress, RegressionRequest(model_spec=spec), INVALID, message)
    check_refused(stub.MultiInference, MultiInferenceRequest(), INVALID, "ModelSpec has no name")


def test_models_are_not_configured_from_afar(models: Any) -> None:
    code = grpc.StatusCode.UNIMPLEMENTED
    message = "HandleReloadConfigRequest: the models are those of the models directory"
    check_refused(models.HandleReloadConfigRequest, ReloadConfigRequest(), code, message)


def test_what_is_no_proto_is_refused(channel: grpc.Channel) -> None:
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    message = "expected a tensorflow.serving.PredictRequest, received "
    check_refused(raw, b"\xff\xff\xff\xff", INVALID, message)
    check_refused(raw, b"\x12\x00" * 2**20, INVALID, "request: expected at most ")


def check_refused(
    method: Callable[..., Any], asked: Any, code: grpc.StatusCode, message: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        method(asked, timeout=PATIENCE_S)
    error: Any = caught.value
    assert (error.code(), error.details()[: len(message)]) == (code, message)
