"""TensorSpec and Signature: the inputs and outputs of one signature of a SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef, TensorInfo

from serving.server.errors import TooLargeError
from serving.server.runtime.settings import ServerSettings
from towers.errors import QueryError

Shape = tuple[int, ...]

_SHOWN = 8


@dataclass(frozen=True)
class TensorSpec:
    """One input or output."""

    name: str
    feed: str
    """Its name in the graph."""
    dtype: int
    """Of `types.proto`."""
    shape: Shape | None
    """-1 stands for any size; None stands for any shape."""

    @classmethod
    def of(cls, name: str, info: TensorInfo) -> TensorSpec:
        """Read it from its description."""
        sizes = tuple(int(dim.size) for dim in info.tensor_shape.dim)
        shape = None if info.tensor_shape.unknown_rank else sizes
        return cls(name, info.name, info.dtype, shape)

    def check_dtype(self, dtype: int) -> None:
        """Refuse a tensor of another type, in TF Serving's words.

        Raises:
            QueryError: the tensor is of another type.
        """
        if dtype != self.dtype:
            raise QueryError(
                f"Expected input {self.name} to be {dtype_name(self.dtype)} but get "
                f"{dtype_name(dtype)}."
            )

    def check_shape(self, shape: Shape, *, settings: ServerSettings) -> None:
        """Refuse a tensor that does not fit, or that is larger than the server takes.

        Raises:
            QueryError: it has another rank or another size.
            TooLargeError: it has more rows, or longer ones, than `settings` allow.
        """
        expected = self.shape
        if expected is not None and (
            len(shape) != len(expected)
            or any(wanted not in {-1, size} for wanted, size in zip(expected, shape, strict=True))
        ):
            raise QueryError(
                f"Expected input {self.name} to have shape {show_shape(expected)} but get "
                f"{show_shape(shape)}; -1 is any size"
            )
        limits = (settings.max_batch, *[settings.max_list] * len(shape))
        if any(size > limit for size, limit in zip(shape, limits, strict=False)):
            raise TooLargeError(
                f"Expected input {self.name} to have at most {settings.max_batch} rows of at most "
                f"{settings.max_list} values but get shape {show_shape(shape)}; send fewer"
            )
        if prod(shape) > settings.max_cells:
            raise TooLargeError(
                f"Expected input {self.name} to have at most {settings.max_cells} values but get "
                f"shape {show_shape(shape)}; send fewer rows, or shorter ones, in one request"
            )


@dataclass(frozen=True)
class Signature:
    """One signature of a model: its inputs and outputs, by name and in the order of their names."""

    name: str
    method: str
    """Such as `tensorflow/serving/predict`."""
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, name: str, definition: SignatureDef) -> Signature:
        """Read it from its definition."""
        inputs, outputs = sorted(definition.inputs.items()), sorted(definition.outputs.items())
        return cls(
            name,
            definition.method_name,
            {key: TensorSpec.of(key, info) for key, info in inputs},
            {key: TensorSpec.of(key, info) for key, info in outputs},
        )


def dtype_name(dtype: int) -> str:
    """Call a type what TensorFlow's messages call it: `int64`, `string`, `float`."""
    if dtype not in types_pb2.DataType.values():
        return f"unknown dtype enum ({dtype})"
    return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()


def show_shape(shape: Shape) -> str:
    """Write a shape as TensorFlow does, shortened: `[2,3]`."""
    more = ",..." if len(shape) > _SHOWN else ""
    return f"[{','.join(map(str, shape[:_SHOWN]))}{more}]"
