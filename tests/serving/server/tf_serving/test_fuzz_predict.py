"""Whatever is sent to TF Serving's surfaces, the answer is a result or says what is at fault."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework.types_pb2 import DT_INT32, DT_STRING
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from tests.patience import PATIENCE_S
from tests.serving.server.tf_serving.predict_support import (
    MODELS,
    RestClient,
    chosen,
    grpc_channel,
    raw_features,
    rest_client,
)
from towers.directions import DIRECTIONS

pytestmark = pytest.mark.slow

REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
bounded = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def rest(published: Path) -> Iterator[RestClient]:
    with rest_client(published, max_batch=8) as client:
        yield client


@pytest.fixture(scope="module")
def channel(published: Path) -> Iterator[grpc.Channel]:
    with grpc_channel(published, max_batch=8) as channel:
        yield channel


strange = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | st.just({"b64": "w7w="})
    | st.just({"b64": "?"}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64", "k", "city"]), inner, max_size=2)
    ),
    max_leaves=8,
)


def valid(world: Any, model: str, *, row: bool) -> dict[str, Any]:
    """A document that is answered."""
    inputs = raw_features(world, model, size=2)
    if model in DIRECTIONS:
        inputs |= chosen(world, model, size=2)
    listed = {name: values.tolist() for name, values in inputs.items()}
    if not row:
        document: dict[str, Any] = {"inputs": listed}
    else:
        document = {"instances": [{name: listed[name][i] for name in listed} for i in range(2)]}
    return document | {"signature_name": "top_k" if model in DIRECTIONS else "serving_default"}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value."""
    inner: Any = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    return [path] + [place for key, value in inner for place in places(value, (*path, key))]


def spoil(data: st.DataObject, document: Any) -> Any:
    """Replace or leave out some values of a document."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        value = copy.deepcopy(data.draw(strange))
        if not path:
            return value
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.integers(0, 3)) == 0:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
    return document


def check_answer(rest: RestClient, model: str, body: bytes) -> None:
    response = rest.predict(model, body)
    content = json.loads(response.content)
    if response.status_code == 200:
        assert {*content} <= {"predictions", "outputs"}
    else:
        assert response.status_code in {400, 404, 413}
        assert [*content] == ["error"]
        assert 0 < len(content["error"]) < 2000


@bounded
@given(data=st.data())
def test_documents(world: Any, rest: RestClient, data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    document = spoil(data, valid(world, model, row=data.draw(st.booleans())))
    check_answer(rest, model, json.dumps(document).encode())


@bounded
@given(data=st.data())
def test_bytes(world: Any, rest: RestClient, data: st.DataObject) -> None:
    body = json.dumps(valid(world, "u2i", row=True)).encode()
    cut = data.draw(st.integers(0, len(body)))
    rest_of = data.draw(st.integers(cut, len(body)))
    check_answer(rest, "u2i", body[:cut] + data.draw(st.binary(max_size=8)) + body[rest_of:])


@pytest.mark.parametrize("filler", [b"[", b'{"a":', b"[NaN,", b'[{"b64":'])
def test_depth(rest: RestClient, filler: bytes) -> None:
    for depth in (100, 900, 10_000, 200_000):
        for end in (b"", b"1"):
            check_answer(rest, "u2i", b'{"instances": [' + filler * depth + end)
    closed = b"[" * 20_000 + b"NaN" + b"]" * 20_000
    check_answer(rest, "u2i", b'{"instances": ' + closed + b"}")


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, 3.4e38, -3.4e38, 1e-45])
def test_extreme_numbers(rest: RestClient, price: float) -> None:
    item = {"item_id": "item 1", "genres": ["x"], "price": price}
    for model in ("item_tower", "i2i", "i2u"):
        check_answer(rest, model, json.dumps({"instances": [item]}).encode())


@st.composite
def protos(draw: st.DrawFn) -> PredictRequest:
    """A valid request in which some tensors are replaced."""
    request = PredictRequest()
    request.model_spec.name = draw(st.sampled_from([*MODELS, ""]))
    request.model_spec.signature_name = draw(st.sampled_from(["", "top_k", "best"]))
    for name, dtype in [("city", DT_STRING), ("history", DT_STRING), ("k", DT_INT32)]:
        if draw(st.integers(0, 5)) == 0:
            continue
        proto = request.inputs[name]
        proto.dtype = draw(st.sampled_from([dtype, dtype, dtype, *range(0, 30)]))
        sizes = st.sampled_from([-1, 0, 1, 1, 1, 2, 9, 5000, 2**31, 2**62])
        for size in draw(st.lists(sizes, max_size=3)):
            proto.tensor_shape.dim.add(size=size)
        proto.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
        proto.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
        proto.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
        proto.tensor_content = draw(st.binary(max_size=8))
    return request


def check_call(call: Any, request: Any) -> None:
    try:
        call(request, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        failure: Any = error
        assert failure.code() in REFUSALS
        assert failure.details()


@bounded
@given(request=protos())
def test_protos(channel: grpc.Channel, request: PredictRequest) -> None:
    check_call(PredictionServiceStub(channel).Predict, request)


@bounded
@given(data=st.data())
def test_bytes_of_protos(channel: grpc.Channel, data: st.DataObject) -> None:
    request = PredictRequest(output_filter=["ids"])
    request.model_spec.name = "u2i"
    request.inputs["city"].string_val.append(b"a")
    raw = request.SerializeToString()
    cut = data.draw(st.integers(0, len(raw)))
    rest_of = data.draw(st.integers(cut, len(raw)))
    body = raw[:cut] + data.draw(st.binary(max_size=8)) + raw[rest_of:]
    check_call(channel.unary_unary("/tensorflow.serving.PredictionService/Predict"), body)


def test_the_server_answers_afterwards(world: Any, rest: RestClient, channel: grpc.Channel) -> None:
    assert rest.predict("u2i", valid(world, "u2i", row=True)).status_code == 200
    request = PredictRequest()
    request.model_spec.name = "u2u"
    for name, sizes in [("city", [1]), ("history", [1, 0])]:
        request.inputs[name].dtype = DT_STRING
        for size in sizes:
            request.inputs[name].tensor_shape.dim.add(size=size)
    assert PredictionServiceStub(channel).Predict(request).outputs["ids"].int64_val
