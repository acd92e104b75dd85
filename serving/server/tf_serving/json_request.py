"""Reads the JSON requests of TF Serving's REST API, and refuses what it refuses in its words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.server.errors import TooLargeError
from serving.server.json_body import parse
from serving.server.runtime.settings import ServerSettings
from serving.server.tf_serving.json_tensors import Format, flatten, is_object, show, to_array
from serving.server.tf_serving.tensor_specs import Shape, Signature, TensorSpec, show_shape
from towers.errors import QueryError

_LONGEST_REASON = 200
"""Characters of what a parser says."""


@dataclass(frozen=True)
class JsonRequest:
    """The JSON of a request. Only its outermost level has been checked."""

    signature: str
    """Empty where none is named."""
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, body: bytes) -> JsonRequest:
        """Read a body.

        Raises:
            QueryError: it is not a JSON object, or `signature_name` is not text.
        """
        document = _parse(body)
        if not isinstance(document, dict):
            raise QueryError(f"JSON Value: {show(document)} Is not object")
        signature = document.get("signature_name", "")
        if not isinstance(signature, str):
            raise QueryError(
                f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must "
                "be a string value."
            )
        return cls(signature, document)

    def read(
        self, signature: Signature, *, settings: ServerSettings
    ) -> tuple[Format, dict[str, NDArray[Any]]]:
        """Turn the document into arrays of the signature's types: int32, int64, float32 or str.

        Raises:
            QueryError: a value is not what the signature expects.
            TooLargeError: there are more values than `settings` allow.
        """
        document = self.document
        if not signature.inputs:
            raise QueryError(f"Failed to get input map for signature: {signature.name}")
        if "instances" in document and "inputs" in document:
            raise QueryError(
                f"JSON Value: {show(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist "
            )
        if "instances" in document:
            reader = _RowReader(signature.inputs, settings)
            return "row", reader.read(document["instances"])
        if "inputs" in document:
            return "column", _read_columns(document["inputs"], signature.inputs, settings)
        raise QueryError("Missing 'inputs' or 'instances' key")


class _RowReader:
    """Joins the values of each input over the instances, which all have one shape."""

    def __init__(self, inputs: Mapping[str, TensorSpec], settings: ServerSettings) -> None:
        self._inputs, self._settings = inputs, settings
        self._values: dict[str, list[Any]] = {name: [] for name in inputs}
        self._shapes: dict[str, Shape] = {}

    def read(self, instances: Any) -> dict[str, NDArray[Any]]:
        """Read the list of instances: objects, or bare values of the only input."""
        if not isinstance(instances, list):
            raise QueryError(
                f"JSON Value: {show(instances)} Excepting 'instances' to be an list/array"
            )
        if not instances:
            raise QueryError("JSON Value: [] No values in 'instances' array")
        limit = self._settings.max_batch
        if len(instances) > limit:
            raise TooLargeError(
                f"'instances': expected at most {limit}, received {len(instances)}; send several "
                "requests"
            )
        if not isinstance(instances[0], dict) and len(self._inputs) > 1:
            raise QueryError(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        read = self._object if is_object(instances[0]) else self._bare
        for number, instance in enumerate(instances):
            read(number, instance)
        return {
            name: to_array(values, self._inputs[name], (len(instances), *self._shapes[name]))
            for name, values in self._values.items()
            if name in self._shapes
        }

    def _object(self, number: int, instance: Any) -> None:
        """Read an instance that names its inputs."""
        if not is_object(instance):
            raise QueryError(f"Expecting object but got list at item {number} of input list")
        for name, value in instance.items():
            self._add(name, value, f"{number} key: {name}")
        if len(instance) != len(self._inputs):
            raise QueryError(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{show(instance)} keys must be equal to: {','.join(self._inputs)}"
            )

    def _bare(self, number: int, instance: Any) -> None:
        """Read an instance that is a value of the only input."""
        if is_object(instance):
            raise QueryError(f"Expecting value/list but got object at item {number} of input list")
        self._add(next(iter(self._inputs)), instance, str(number))

    def _add(self, name: str, value: Any, where: str) -> None:
        """Append a value to its input."""
        try:
            if name not in self._inputs:
                raise QueryError(f"JSON object: does not have named input: {name}")
            shape, flat = flatten(value, self._inputs[name])
            expected = self._shapes.setdefault(name, shape)
            if shape != expected:
                _refuse_shape(shape, expected)
        except QueryError as error:
            raise QueryError(
                f"Failed to process element: {where} of 'instances' list. Error: "
                f"INVALID_ARGUMENT: {error}"
            ) from None
        self._inputs[name].check_shape((1, *shape), settings=self._settings)
        self._values[name] += flat


def _read_columns(
    columns: Any, inputs: Mapping[str, TensorSpec], settings: ServerSettings
) -> dict[str, NDArray[Any]]:
    """Read an object of inputs, or the bare value of the only one."""
    if not is_object(columns):
        if len(inputs) > 1:
            raise QueryError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        columns = {next(iter(inputs)): columns}
    arrays = {}
    for name, spec in inputs.items():
        if name not in columns:
            raise QueryError(f"Missing named input: {name} in 'inputs' object.")
        shape, flat = flatten(columns[name], spec)
        spec.check_shape(shape, settings=settings)
        arrays[name] = to_array(flat, spec, shape)
    return arrays


def _refuse_shape(shape: Shape, expected: Shape) -> None:
    """Say that an instance differs from the first one."""
    count, wanted = int(np.prod(shape, dtype=np.int64)), int(np.prod(expected, dtype=np.int64))
    if count != wanted:
        raise QueryError(f"Expecting tensor size: {wanted} but got: {count}")
    raise QueryError(f"Expecting shape {show_shape(expected)} but got: {show_shape(shape)}")


def _parse(body: bytes) -> Any:
    """Parse JSON. NaN and infinities are numbers here, as in TF Serving.

    Raises:
        QueryError: it is not JSON.
    """
    if not body:
        raise QueryError("JSON Parse error: The document is empty")
    try:
        return parse(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise QueryError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    try:
        document = json.loads(body.decode())
        orjson.dumps(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise QueryError(f"JSON Parse error: {str(error)[:_LONGEST_REASON]}") from None
    return document
