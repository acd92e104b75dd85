from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.server.errors import TooLargeError
from serving.server.tf_serving.proto_fields import MOST_MESSAGES, check_fields

MOST = 100


def delimited(number: int, content: bytes) -> bytes:
    """A field of that number, whose content has a length."""
    size, parts = len(content), [number << 3 | 2]
    while size > 0x7F:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*parts, size]) + content


def tensor(content: bytes) -> bytes:
    """A request with one tensor."""
    return delimited(2, delimited(1, b"a") + delimited(2, content))


TOO_LARGE = {
    "empty inputs": b"\x12\x00" * (MOST + 1),
    "texts": tensor(b"\x42\x00" * (MOST + 1)),
    "packed integers": tensor(delimited(10, b"\x80\x01" * (MOST + 1))),
    "single integers": tensor(b"\x50\x01" * (MOST + 1)),
    "sizes of a shape": tensor(delimited(2, b"\x12\x00" * (MOST + 1))),
    "fields that nobody knows": b"\xf8\x07\x01" * (MOST + 1),
    "names of outputs": b"\x1a\x00" * (MOST + 1),
    "behind a length that is too large": b"\x12\x7f" + tensor(b"\x42\x00" * (MOST + 1)),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_too_many_values_are_refused(kind: str) -> None:
    with pytest.raises(TooLargeError, match=f"at most {MOST} values"):
        check_fields(PredictRequest, TOO_LARGE[kind], most=MOST)


def test_too_many_messages_are_refused() -> None:
    with pytest.raises(TooLargeError, match=f"{MOST_MESSAGES} messages"):
        check_fields(PredictRequest, b"\x12\x00" * (MOST_MESSAGES + 1), most=10**6)


def test_as_many_as_are_allowed_pass() -> None:
    request = PredictRequest()
    request.model_spec.name = "u2i"
    request.inputs["ids"].CopyFrom(tf.make_tensor_proto(np.arange(60), shape=[60]))
    request.inputs["texts"].CopyFrom(tf.make_tensor_proto(["a text"] * 20))
    request.inputs["prices"].CopyFrom(tf.make_tensor_proto(np.ones(1000, np.float32)))
    check_fields(PredictRequest, request.SerializeToString(), most=MOST)


@given(raw=st.binary(max_size=60) | st.binary(max_size=20).map(tensor))
def test_nothing_else_is_raised_whatever_the_bytes(raw: bytes) -> None:
    check_fields(PredictRequest, raw, most=1000)
    try:
        request = PredictRequest.FromString(raw)
    except DecodeError:
        return
    n_inputs = len(request.inputs)
    if n_inputs:
        with pytest.raises(TooLargeError):
            check_fields(PredictRequest, raw, most=n_inputs - 1)
