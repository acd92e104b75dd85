"""Converts nested lists of JSON to NumPy arrays and back, as TF Serving does."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING

from serving.server.tf_serving.proto_tensors import not_text
from serving.server.tf_serving.tensor_specs import Shape, TensorSpec, dtype_name
from towers.errors import QueryError

Format = Literal["row", "column"]

LARGEST_EXACT = 2**24 - 1
"""Up to here every integer is a 32-bit float exactly."""

_BEYOND_FLOAT = 2.0**128 - 2.0**103
"""From here on a 32-bit float is infinite."""

_INTEGERS: dict[int, type[np.signedinteger[Any]]] = {DT_INT32: np.int32, DT_INT64: np.int64}
_KINDS = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
_SHOWN = 200
_BASE64 = "b64"


def dump(arrays: Mapping[str, NDArray[Any]], *, form: Format) -> bytes:
    """Write outputs as TF Serving does: infinities as `Infinity`, one output without its name."""
    names = sorted(arrays)
    if form == "column":
        columns = {name: _writable(arrays[name]) for name in names}
        return _dumps({"outputs": columns if len(names) > 1 else columns[names[0]]})
    size = len(arrays[names[0]])
    rows = {name: [_writable(row) for row in arrays[name]] for name in names}
    if len(names) == 1:
        return _dumps({"predictions": rows[names[0]]})
    predictions = [{name: rows[name][row] for name in names} for row in range(size)]
    return _dumps({"predictions": predictions})


def flatten(value: Any, spec: TensorSpec) -> tuple[Shape, list[Any]]:
    """Tell the shape of nested lists, and list their values, which are of the input's type.

    Raises:
        QueryError: lists differ in length or depth, or a value is of another type.
    """
    shape = _shape(value)
    flat = [value]
    for level, size in enumerate(shape):
        for part in flat:
            if not isinstance(part, list):
                raise QueryError(
                    f"JSON Value: {show(part)} found at incorrect level: {level + 1} in the JSON "
                    f"DOM. Expected at level: {len(shape)}"
                )
            if len(part) != size:
                raise QueryError(
                    f"Encountered list at unexpected size: {len(part)} at level: {level} expected "
                    f"size: {size}"
                )
        flat = [element for part in flat for element in part]
    if any(isinstance(element, list) for element in flat):
        raise QueryError(
            f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}"
        )
    return shape, _READERS[spec.dtype](flat, spec)


def _shape(value: Any) -> Shape:
    """The lengths of nested lists, by the first element of each."""
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sizes)


def _texts(values: list[Any], spec: TensorSpec) -> list[Any]:
    """Take strings, and bytes as `{"b64": ...}`."""
    return [value if type(value) is str else _text(value, spec) for value in values]


def _text(value: Any, spec: TensorSpec) -> str:
    if not isinstance(value, dict):
        raise _type_error(value, spec)
    encoded = value.get(_BASE64)
    if len(value) != 1 or not isinstance(encoded, str):
        raise QueryError(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    try:
        decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return decoded.decode()
    except UnicodeDecodeError as error:
        raise not_text(error, spec.name) from None
    except ValueError:
        raise QueryError("Unable to base64 decode") from None


def _integers(values: list[Any], spec: TensorSpec) -> list[Any]:
    """Take integers within the type's range."""
    bounds = np.iinfo(_INTEGERS[spec.dtype])
    least, most = int(bounds.min), int(bounds.max)
    for value in values:
        if type(value) is not int or not least <= value <= most:
            raise _type_error(value, spec)
    return values


def _floats(values: list[Any], spec: TensorSpec) -> list[Any]:
    """Take numbers that a 32-bit float holds, NaN and infinities among them."""
    for value in values:
        if type(value) is float:
            lossless = abs(value) < _BEYOND_FLOAT or not np.isfinite(value)
        elif type(value) is int:
            lossless = abs(value) <= LARGEST_EXACT
        else:
            raise _type_error(value, spec)
        if not lossless:
            raise QueryError(
                f"Cannot convert JSON value: {show(value)} to float without loss of precision."
            )
    return values


_READERS: dict[int, Callable[[list[Any], TensorSpec], list[Any]]] = {
    DT_STRING: _texts,
    DT_INT32: _integers,
    DT_INT64: _integers,
    DT_FLOAT: _floats,
}


def to_array(flat: list[Any], spec: TensorSpec, shape: Shape) -> NDArray[Any]:
    """Put checked values into an array."""
    if spec.dtype == DT_STRING:
        texts = np.empty(len(flat), object)
        texts[:] = flat
        return texts.reshape(shape)
    return np.array(flat, _INTEGERS.get(spec.dtype, np.float32)).reshape(shape)


def is_object(value: Any) -> bool:
    """Whether a value is an object, and not one that stands for bytes."""
    if not isinstance(value, dict):
        return False
    return not (len(value) == 1 and isinstance(value.get(_BASE64), str))


def _type_error(value: Any, spec: TensorSpec) -> QueryError:
    kind = str(value) if isinstance(value, bool) else _KINDS.get(type(value), "Number")
    return QueryError(
        f"JSON Value: {show(value)} Type: {kind} is not of expected type: {dtype_name(spec.dtype)}"
    )


def show(value: Any) -> str:
    """Write a value for a message, shortened."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = "nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _writable(values: NDArray[Any]) -> Any:
    """Make an array writable by orjson, with TF Serving's words for infinities and NaN."""
    if values.dtype == object:
        return values.tolist()
    values = np.ascontiguousarray(values)
    if values.dtype != np.float32 or np.isfinite(values).all():
        return values
    strange = values[~np.isfinite(values)].tolist()
    words = ["NaN" if np.isnan(x) else "Infinity" if x > 0 else "-Infinity" for x in strange]
    pieces = _dumps(values).decode().split("null")
    between = [text for pair in zip(pieces, [*words, ""], strict=True) for text in pair]
    return orjson.Fragment("".join(between).encode())
