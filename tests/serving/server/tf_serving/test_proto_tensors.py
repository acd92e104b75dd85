from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING

from serving.server.errors import TooLargeError
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.proto_tensors import read_tensor, write_tensor
from serving.server.tf_serving.tensor_specs import TensorSpec
from towers.errors import QueryError

SETTINGS = ServerSettings(max_batch=4, max_list=4)
NUMPY = {DT_FLOAT: np.float32, DT_INT32: np.int32, DT_INT64: np.int64, DT_STRING: object}


def read(proto: TensorProto, dtype: int, shape: tuple[int, ...] | None = None) -> Any:
    return read_tensor(proto, TensorSpec("x", "f_x:0", dtype, shape), settings=SETTINGS)


def tensors() -> st.SearchStrategy[Any]:
    shapes = arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)

    def values(dtype: int) -> Any:
        elements = st.text(max_size=3) if dtype == DT_STRING else None
        made = arrays.arrays(NUMPY[dtype], shapes, elements=elements, fill=st.nothing())
        return st.tuples(st.just(dtype), made)

    return st.sampled_from([*NUMPY]).flatmap(values)


def test_rows_times_length_has_a_limit_before_anything_is_allocated() -> None:
    """A proto of some bytes says that its one value is repeated a million times."""
    settings = ServerSettings(max_batch=1024, max_list=4096, max_cells=1000)
    spec = TensorSpec("x", "f_x:0", DT_STRING, None)
    proto = TensorProto(dtype=DT_STRING, string_val=[b"a"])
    for size in (1000, 4):
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(TooLargeError, match=r"at most 1000 values but get shape \[1000,4\]"):
        read_tensor(proto, spec, settings=settings)
    proto.tensor_shape.dim[0].size = 250
    assert read_tensor(proto, spec, settings=settings).shape == (250, 4)


@given(case=tensors(), typed=st.booleans())
def test_protos_of_the_official_client_are_read(case: Any, typed: bool) -> None:
    dtype, values = case
    proto = tf.make_tensor_proto(values, dtype=dtype, shape=values.shape)
    if typed and dtype != DT_STRING and values.size:
        field = {DT_FLOAT: "float_val", DT_INT32: "int_val", DT_INT64: "int64_val"}[dtype]
        proto = TensorProto(dtype=dtype, tensor_shape=proto.tensor_shape)
        getattr(proto, field).extend(values.ravel().tolist())
    found = read(proto, dtype)
    assert found.dtype == NUMPY[dtype]
    np.testing.assert_array_equal(found, values)


@given(case=tensors().filter(lambda case: case[0] != DT_INT32))
def test_the_official_client_reads_what_is_written(case: Any) -> None:
    dtype, values = case
    proto = TensorProto()
    write_tensor(values, proto)
    found = tf.make_ndarray(proto)
    expected = values
    if dtype == DT_STRING:
        expected = np.vectorize(str.encode, otypes=[object])(values) if values.size else values
    assert found.shape == values.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (TensorProto(int64_val=[1, 2]), [1, 2, 2]),
        (TensorProto(), [0, 0, 0]),
        (TensorProto(int64_val=[1, 2, 3, 4]), [1, 2, 3]),
        (TensorProto(tensor_content=np.array([7, 8, 9]).tobytes(), int64_val=[1]), [7, 8, 9]),
    ],
)
def test_too_few_and_too_many_values_count_as_in_tensorflow(
    proto: TensorProto, expected: list[int]
) -> None:
    proto.dtype = DT_INT64
    proto.tensor_shape.dim.add(size=3)
    assert read(proto, DT_INT64).tolist() == tf.convert_to_tensor(expected).numpy().tolist()
    texts = TensorProto(dtype=DT_STRING, tensor_shape=proto.tensor_shape)
    assert read(texts, DT_STRING).tolist() == ["", "", ""]


def broken(dtype: int = DT_INT64, sizes: tuple[int, ...] = (1,), **fields: Any) -> TensorProto:
    proto = TensorProto(dtype=dtype, **fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "dtype", "message"),
    [
        (broken(DT_FLOAT), DT_INT64, "Expected input x to be int64 but get float."),
        (broken(999), DT_INT64, "to be int64 but get unknown dtype enum (999)."),
        (broken(sizes=(1, 1)), DT_INT64, "to have shape [-1] but get [1,1]"),
        (broken(sizes=(-1,)), DT_INT64, "tensor parsing error: x"),
        (broken(tensor_content=b"1234567"), DT_INT64, "tensor parsing error: x: expected 8 bytes"),
        (broken(DT_STRING, tensor_content=b"\1a"), DT_STRING, "tensor parsing error: x"),
        (broken(DT_STRING, string_val=[b"\xff"]), DT_STRING, "Expected input x to be UTF-8"),
    ],
)
def test_protos_at_fault_are_refused(proto: TensorProto, dtype: int, message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        read(proto, dtype, (-1,))


def test_unknown_rank_is_refused() -> None:
    proto = broken(sizes=())
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(QueryError, match="tensor parsing error: x"):
        read(proto, DT_INT64)


@pytest.mark.parametrize("sizes", [(5, 1), (1, 5), (2**40, 2**40)])
def test_shapes_have_limits_whatever_the_values_are(sizes: tuple[int, ...]) -> None:
    with pytest.raises(TooLargeError, match="at most 4 rows of at most 4 values"):
        read(broken(sizes=sizes, int64_val=[1]), DT_INT64, (-1, -1))
