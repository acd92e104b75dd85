from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tests.serving.server.tf_serving.predict_support import (
    MODELS,
    RestClient,
    check_same,
    chosen,
    raw_features,
    rest_client,
    saved_model,
)
from towers.directions import DIRECTIONS

ROW = {"history": ["item 1", "item 2"], "city": "a"}


@pytest.fixture(scope="module")
def rest(published: Path) -> Iterator[RestClient]:
    with rest_client(published, max_k=20, max_batch=8, max_list=64) as client:
        yield client


def columns(inputs: Any) -> dict[str, Any]:
    return {name: values.tolist() for name, values in inputs.items()}


def rows(inputs: Any) -> list[dict[str, Any]]:
    names, listed = [*inputs], [values.tolist() for values in inputs.values()]
    return [dict(zip(names, values, strict=True)) for values in zip(*listed, strict=True)]


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_the_saved_models(
    world: Any, published: Path, rest: RestClient, model: str
) -> None:
    for signature in ("serving_default", "top_k")[: 2 if model in DIRECTIONS else 1]:
        inputs = raw_features(world, model, size=3)
        if signature == "top_k":
            inputs |= chosen(world, model, size=3)
        expected = saved_model(published, model, signature, inputs)
        named = {"signature_name": signature}
        response = rest.predict(model, named | {"inputs": columns(inputs)})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-model-version"] == "1"
        found = response.json()["outputs"]
        check_same(found if len(expected) > 1 else {"vector": found}, expected)
        found = rest.predict(model, named | {"instances": rows(inputs)}).json()["predictions"]
        assert len(found) == 3
        if len(expected) == 1:
            check_same({"vector": found}, expected)
        else:
            check_same({name: [row[name] for row in found] for name in expected}, expected)


def test_what_is_missing_has_the_score_minus_infinity(rest: RestClient) -> None:
    everything = [f"item {row}" for row in range(30)]
    instance = ROW | {"k": 20, "exclude": everything}
    others = ROW | {"k": 1, "exclude": everything}
    body = {"signature_name": "top_k", "instances": [instance, others]}
    text = rest.predict("u2i", body).text
    assert "-Infinity" in text
    padded = json.loads(text)["predictions"][1]
    assert padded["ids"][1:] == [""] * 19
    assert padded["scores"][1:] == [-np.inf] * 19


def test_missing_numbers_may_be_nan(rest: RestClient) -> None:
    item = {"item_id": "new", "genres": [], "price": float("nan")}
    assert rest.predict("i2i", {"instances": [item]}).status_code == 200


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/current"])
def test_status(rest: RestClient, where: str) -> None:
    response = rest.get(f"/v1/models/u2i{where}")
    assert response.status_code == 200
    ok = {"error_code": "OK", "error_message": ""}
    assert response.json() == {
        "model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}]
    }


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/current"])
def test_metadata(rest: RestClient, where: str) -> None:
    found = rest.get(f"/v1/models/u2i{where}/metadata").json()
    assert found["model_spec"] == {"name": "u2i", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "top_k"} <= {*signatures}
    assert signatures["top_k"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["top_k"]["inputs"]["k"] == {
        "name": "top_k_k:0",
        "dtype": "DT_INT32",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }
    described = json_format.ParseDict(found["metadata"]["signature_def"], SignatureDefMap())
    served = rest.core.versions.current().signatures["u2i"]
    assert dict(described.signature_def) == dict(served)


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/current"])
def test_versions_can_be_named(rest: RestClient, where: str) -> None:
    path = f"/V1/Models/u2i{where}:Predict"
    assert rest.request("POST", path, {"instances": [ROW]}).status_code == 200


PREDICT = "/v1/models/u2i:predict"
BODY = {"instances": [ROW]}


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "message"),
    [
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/metadata", None, 404, "Could not find any versions of model metadata"),
        ("GET", "/v1/models/", None, 400, "Malformed request: GET /v1/models/"),
        ("GET", "/v1/models/x", None, 404, "Could not find any versions of model x"),
        ("GET", "/v1/models/u2i/versions/7", None, 404, "Could not find version 7 of model u2i"),
        ("GET", "/v1/models/u2i/versions/7/metadata", None, 404, "Servable not found for request"),
        ("GET", "/v1/models/u2i/labels/x", None, 400, "Unrecognized servable version label: x"),
        ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/u2i:predict"),
        ("POST", "/v1/models/u2i", BODY, 400, "Malformed request: POST /v1/models/u2i"),
        ("POST", "/v1/models/u2i:rank", BODY, 400, "Malformed request: POST"),
        ("DELETE", "/v1/models/u2i", None, 400, "Malformed request: DELETE /v1/models/u2i"),
        ("POST", "/v1/models/u2i/versions/x:predict", BODY, 400, "Malformed request: POST"),
        (
            "POST",
            f"/v1/models/u2i/versions/{2**63}:predict",
            BODY,
            400,
            "Failed to convert version: 9223372036854775808 to numeric.",
        ),
        (
            "POST",
            "/v1/models/x:predict",
            BODY,
            404,
            "Servable not found for request: Latest(x)",
        ),
        (
            "POST",
            "/v1/models/u2i/versions/7:predict",
            BODY,
            404,
            "Servable not found for request: Specific(u2i, 7)",
        ),
        ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (
            "POST",
            PREDICT,
            BODY | {"signature_name": "best"},
            400,
            'Serving signature name: "best" not found in signature def',
        ),
        (
            "POST",
            PREDICT,
            BODY | {"signature_name": "__saved_model_init_op"},
            400,
            "Failed to get input map for signature: __saved_model_init_op",
        ),
        (
            "POST",
            "/v1/models/u2i:classify",
            BODY,
            400,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
        ),
        (
            "POST",
            "/v1/models/u2i:regress",
            BODY,
            400,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/predict",
        ),
        (
            "POST",
            PREDICT,
            {"signature_name": "top_k", "instances": [ROW | {"k": 21, "exclude": []}]},
            400,
            "k: expected at least 1 and at most 20, received 21",
        ),
        ("POST", PREDICT, {"instances": [ROW] * 9}, 413, "'instances': expected at most 8"),
    ],
)
def test_requests_at_fault_are_refused(
    rest: RestClient, method: str, path: str, body: Any, code: int, message: str
) -> None:
    response = rest.request(method, path, body)
    assert response.status_code == code
    assert [*response.json()] == ["error"]
    assert response.json()["error"].startswith(message)


def test_errors_are_short(rest: RestClient) -> None:
    response = rest.predict("u2i", {"instances": [{"x" * 10**5: 1}]})
    assert response.status_code == 400
    assert len(response.json()["error"]) == 1000


def test_requests_are_counted(rest: RestClient) -> None:
    def counted() -> dict[tuple[str, str], float]:
        return {
            (model, code): rest.core.metrics.registry.get_sample_value(
                "fm_recall_requests_total", {"surface": "rest", "model": model, "code": code}
            )
            or 0.0
            for model, code in [
                ("u2u", "OK"),
                ("u2u", "INVALID_ARGUMENT"),
                ("unknown", "NOT_FOUND"),
            ]
        }

    before = counted()
    rest.predict("u2u", BODY)
    rest.predict("u2u", {})
    rest.predict("a model of somebody", BODY)
    assert counted() == {key: count + 1 for key, count in before.items()}
