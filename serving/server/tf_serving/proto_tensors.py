"""Converts `TensorProto` to NumPy arrays and back, without TensorFlow's own tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING

from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.tensor_specs import TensorSpec
from towers.errors import QueryError

PIECE = 2**15
"""Values that are written at a time: no other thread gets a turn meanwhile."""

_FIELDS: dict[int, tuple[str, type[Any]]] = {
    DT_FLOAT: ("float_val", np.float32),
    DT_INT32: ("int_val", np.int32),
    DT_INT64: ("int64_val", np.int64),
}
"""The field of a proto that holds the values of a type, and NumPy's name of the type."""


def read_tensor(proto: TensorProto, spec: TensorSpec, *, settings: ServerSettings) -> NDArray[Any]:
    """Turn a proto into an array of its shape: int32, int64, float32, or str objects.

    As in TensorFlow, where a proto has too few values, the last one is repeated; where it has no
    value at all, they are 0 or `""`.

    Raises:
        QueryError: the type or the shape is not that of `spec`, the values are damaged, or a text
            is not UTF-8.
        TooLargeError: the shape is larger than `settings` allow.
    """
    spec.check_dtype(proto.dtype)
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise QueryError(f"tensor parsing error: {spec.name}: expected sizes of at least 0")
    spec.check_shape(shape, settings=settings)
    if spec.dtype == DT_STRING:
        return _texts(proto, spec.name, prod(shape)).reshape(shape)
    return _numbers(proto, spec.name, prod(shape)).reshape(shape)


def write_tensor(values: NDArray[Any], proto: TensorProto) -> None:
    """Fill an empty proto with float32, int64 or str objects, as TF Serving does."""
    add_size = proto.tensor_shape.dim.add
    for size in values.shape:
        add_size(size=size)
    if values.dtype == np.float32:
        proto.dtype = DT_FLOAT
        extend = proto.float_val.extend
    elif values.dtype == np.int64:
        proto.dtype = DT_INT64
        extend = proto.int64_val.extend
    else:
        proto.dtype = DT_STRING
        extend = _extend_by_texts(proto)
    flat = values.ravel()
    for start in range(0, flat.size, PIECE):
        extend(flat[start : start + PIECE].tolist())


def _extend_by_texts(proto: TensorProto) -> Callable[[list[str]], None]:
    def extend(texts: list[str]) -> None:
        proto.string_val.extend([text.encode() for text in texts])

    return extend


def not_text(error: UnicodeDecodeError, name: str) -> QueryError:
    """Say that a value of input `name` is not UTF-8."""
    return QueryError(f"Expected input {name} to be UTF-8 but get {error.object[:80]!r}")


def _numbers(proto: TensorProto, name: str, count: int) -> NDArray[Any]:
    """The `count` values of a proto of numbers."""
    field, dtype = _FIELDS[proto.dtype]
    content = proto.tensor_content
    if content:
        expected = count * np.dtype(dtype).itemsize
        if len(content) != expected:
            raise QueryError(
                f"tensor parsing error: {name}: expected {expected} bytes, received {len(content)}"
            )
        return np.frombuffer(content, dtype)
    values = getattr(proto, field)[:count]
    return np.array(_fill(values, count, default=0), dtype)


def _texts(proto: TensorProto, name: str, count: int) -> NDArray[Any]:
    """The `count` values of a proto of texts."""
    if proto.tensor_content:
        raise QueryError(f"tensor parsing error: {name}: expected texts in string_val")
    values = proto.string_val[:count]
    try:
        texts = [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise not_text(error, name) from None
    array = np.empty(count, object)
    array[:] = _fill(texts, count, default="")
    return array


def _fill(values: list[Any], count: int, *, default: Any) -> list[Any]:
    """Repeat the last value until there are `count`."""
    lacking = count - len(values)
    return values + [values[-1] if values else default] * lacking if lacking else values
