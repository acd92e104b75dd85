"""Tower: the SavedModel of one tower, called with raw values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.index import Vectors
from towers.errors import BundleError
from towers.inputs import pack


class Tower:
    """Turns the features of users, or of items, into their vectors."""

    def __init__(self, path: Path) -> None:
        """Load the SavedModel in the folder `path`.

        Raises:
            BundleError: there is none, or it is damaged.
        """
        try:
            self._model = tf.saved_model.load(str(path))
        except (OSError, tf.errors.OpError) as error:
            raise BundleError(
                f"{path}: expected a SavedModel, received {error}; publish again, or roll back to "
                "another version"
            ) from None
        self._call = self._model.signatures["serving_default"]
        self.inputs = {
            name: (
                object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype,
                spec.shape.rank,
            )
            for name, spec in self._call.structured_input_signature[1].items()
        }
        """The features by name: NumPy type and rank, as `towers.inputs.pack` takes them."""

    def pack(self, columns: Mapping[str, Sequence[Any]], *, size: int) -> dict[str, NDArray[Any]]:
        """Turn `size` raw values a feature into dense arrays; one that is not given is missing.

        Raises:
            QueryError: a feature is unknown, or a value does not fit its type.
        """
        return pack(columns, inputs=self.inputs, size=size)

    def __call__(self, packed: Mapping[str, NDArray[Any]]) -> Vectors:
        """Compute vectors [size, 1 + d] float32 of packed features."""
        inputs = {name: tf.constant(values) for name, values in packed.items()}
        vectors: Vectors = self._call(**inputs)["vector"].numpy()
        return vectors.astype(np.float32, copy=False)
