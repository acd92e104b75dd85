from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING

from serving.server.errors import TooLargeError
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.json_request import JsonRequest
from serving.server.tf_serving.tensor_specs import Signature, TensorSpec
from towers.errors import QueryError

SETTINGS = ServerSettings(max_batch=3, max_list=5)
SPECS = {
    "id": TensorSpec("id", "f_id:0", DT_INT64, (-1,)),
    "k": TensorSpec("k", "f_k:0", DT_INT32, (-1,)),
    "price": TensorSpec("price", "f_price:0", DT_FLOAT, (-1,)),
    "tags": TensorSpec("tags", "f_tags:0", DT_STRING, (-1, -1)),
}


def read(body: Any, *names: str) -> tuple[str, dict[str, Any]]:
    """Read a document, of which some inputs are those of the signature."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inputs = {name: SPECS[name] for name in sorted(names)}
    signature = Signature("best", "tensorflow/serving/predict", inputs, {})
    form, arrays = JsonRequest.parse(raw).read(signature, settings=SETTINGS)
    return form, arrays


def test_rows_and_columns_are_the_same_request() -> None:
    rows = {"instances": [{"id": 1, "tags": ["a", "b"]}, {"id": -(2**63), "tags": ["", "ü"]}]}
    columns = {"inputs": {"tags": [["a", "b"], ["", "ü"]], "id": [1, -(2**63)]}}
    for body, form in [(rows, "row"), (columns, "column")]:
        found, arrays = read(body, "id", "tags")
        assert found == form
        assert arrays["id"].dtype == np.int64
        assert arrays["id"].tolist() == [1, -(2**63)]
        assert arrays["tags"].dtype == object
        assert arrays["tags"].tolist() == [["a", "b"], ["", "ü"]]


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_the_only_input_needs_no_name(key: str) -> None:
    assert read({key: [3, 4]}, "k")[1]["k"].tolist() == [3, 4]
    assert read({key: [["a"], ["b"]]}, "tags")[1]["tags"].tolist() == [["a"], ["b"]]
    assert read({key: [[], []]}, "tags")[1]["tags"].shape == (2, 0)


def test_bytes_come_as_base64() -> None:
    found = read({"instances": [{"tags": [{"b64": "w7w="}, {"b64": "w7w"}, "x"]}]}, "tags")[1]
    assert found["tags"].tolist() == [["ü", "ü", "x"]]


def test_numbers_may_be_integers_and_not_finite() -> None:
    body = b'{"instances": [{"price": 2}, {"price": NaN}, {"price": -Infinity}]}'
    prices = read(body, "price")[1]["price"]
    assert prices.dtype == np.float32
    np.testing.assert_array_equal(prices, [2, math.nan, -math.inf])


DEEP = b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}"
DEEPER = b'{"instances": ' + b"[" * 10**5 + b"NaN" + b"]" * 10**5 + b"}"


@pytest.mark.parametrize(
    ("body", "names", "message"),
    [
        (b"", ["k"], "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", ["k"], "JSON Parse error: "),
        (b'{"instances": ["\xff"]}', ["tags"], "JSON Parse error: "),
        (b'{"instances": ["\\ud800", NaN]}', ["tags"], "JSON Parse error: "),
        (b'{"instances": [NaN, 1' + b"0" * 5000 + b"]}", ["price"], "JSON Parse error: "),
        (DEEPER, ["tags"], "JSON Parse error: "),
        (DEEP, ["tags"], "to have shape [-1,-1] but get [1,1,1,1,1,1,1,1,...]"),
        ([1], ["k"], "JSON Value: [1] Is not object"),
        ({"signature_name": 1, "inputs": 1}, ["k"], "'signature_name' key must be a string value."),
        ({}, ["k"], "Missing 'inputs' or 'instances' key"),
        ({"inputs": 1, "instances": 1}, ["k"], "expecting only one of 'inputs' or 'instances'"),
        ({"instances": 1}, ["k"], "Excepting 'instances' to be an list/array"),
        ({"instances": []}, ["k"], "No values in 'instances' array"),
        ({"inputs": 1}, [], "Failed to get input map for signature: best"),
        ({"instances": [1]}, ["k", "id"], "instances is a plain list, but expecting list of"),
        ({"inputs": [1]}, ["k", "id"], "inputs is a plain value/list, but expecting an object"),
        ({"inputs": {"k": [1]}}, ["k", "id"], "Missing named input: id in 'inputs' object."),
        (
            {"instances": [{"k": 1}]},
            ["k", "id"],
            "Failed to process element: 0 of 'instances' list. JSON object: "
            '{"k":1} keys must be equal to: id,k',
        ),
        (
            {"instances": [{"k": 1, "x": 1}]},
            ["k", "id"],
            "Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: x",
        ),
        ({"instances": [{"k": 1}, 1]}, ["k"], "Expecting object but got list at item 1"),
        ({"instances": [1, {"k": 1}]}, ["k"], "Expecting value/list but got object at item 1"),
        (
            {"instances": [["a"], ["a", "b"]]},
            ["tags"],
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting "
            "tensor size: 1 but got: 2",
        ),
        ({"instances": [["a"], [["a"]]]}, ["tags"], "Expecting shape [1] but got: [1,1]"),
        ({"inputs": [["a"], "a"]}, ["tags"], '"a" found at incorrect level: 2 in the JSON DOM'),
        (
            {"inputs": [["a"], []]},
            ["tags"],
            "list at unexpected size: 0 at level: 1 expected size: 1",
        ),
        ({"inputs": ["a", ["a"]]}, ["tags"], "list at unexpected level: 1 expected < 1"),
        ({"inputs": ["a"]}, ["tags"], "Expected input tags to have shape [-1,-1] but get [1]"),
        ({"inputs": 1}, ["k"], "Expected input k to have shape [-1] but get []"),
        ({"inputs": [1.5]}, ["k"], "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        ({"inputs": [2**31]}, ["k"], "JSON Value: 2147483648 Type: Number is not of"),
        ({"inputs": [2**63]}, ["id"], "Type: Number is not of expected type: int64"),
        ({"inputs": [10**30]}, ["id"], "Type: Number is not of expected type: int64"),
        ({"inputs": [True]}, ["id"], "JSON Value: true Type: True is not of expected type: int64"),
        ({"inputs": ["1"]}, ["id"], 'JSON Value: "1" Type: String is not of expected type: int64'),
        ({"inputs": [None]}, ["price"], "JSON Value: null Type: Null is not of expected type"),
        ({"inputs": [{"a": 1}]}, ["price"], "Type: Object is not of expected type: float"),
        ({"inputs": [1e39]}, ["price"], "Cannot convert JSON value: 1e+39 to float without loss"),
        ({"inputs": [2**24]}, ["price"], "Cannot convert JSON value: 16777216 to float without"),
        ({"inputs": [[1]]}, ["tags"], "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"inputs": [[{"b64": "?"}]]}, ["tags"], "Unable to base64 decode"),
        ({"inputs": [[{"b64": "ü"}]]}, ["tags"], "Unable to base64 decode"),
        ({"inputs": [[{"b64": "/w=="}]]}, ["tags"], "Expected input tags to be UTF-8"),
        ({"inputs": [[{"b64": 1}]]}, ["tags"], '{"b64":1} not formatted correctly for base64 data'),
    ],
)
def test_documents_at_fault_are_refused(body: Any, names: list[str], message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)) as caught:
        read(body, *names)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [["a"]] * 4}, "expected at most 3, received 4"),
        ({"inputs": [["a"]] * 4}, "at most 3 rows of at most 5 values but get shape [4,1]"),
        ({"instances": [["a"] * 6]}, "at most 5 values but get shape [1,6]"),
    ],
)
def test_documents_have_limits(body: Any, message: str) -> None:
    with pytest.raises(TooLargeError, match=re.escape(message)):
        read(body, "tags")
