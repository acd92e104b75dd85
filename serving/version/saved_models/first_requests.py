"""Warm-up requests: what a server asks a version before clients may, as TF Serving's layout has it.

The first calls of a SavedModel are slow: ScaNN's searcher is made and kernels allocate. TF Serving
replays these records, which belong to each model, when it loads a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
"""The file, below a SavedModel's folder."""

BATCH_SIZES = (1, 4, 16, 64)
"""How many queries the requests ask at once. TF Serving takes a thousand records at most."""


def write_warmup(
    folder: Path, *, model: str, signatures: Mapping[str, Mapping[str, NDArray[Any]]]
) -> None:
    """Write requests of several sizes for each signature of a SavedModel, as a TFRecord file.

    Args:
        folder: the SavedModel's.
        model: the name that clients call it by.
        signatures: for each, all its inputs by name, [n] or [n, m]; the first rows are asked.
    """
    path = folder / RECORDS
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in signatures.items():
            n = min(len(values) for values in inputs.values())
            for size in sorted({min(size, n) for size in BATCH_SIZES}):
                log = PredictionLog()
                request = log.predict_log.request
                request.model_spec.name, request.model_spec.signature_name = model, signature
                for name, values in inputs.items():
                    request.inputs[name].CopyFrom(_tensor(values[:size]))
                writer.write(log.SerializeToString(deterministic=True))


def _tensor(values: NDArray[Any]) -> Any:
    """The tensor of an array; text, which is of NumPy's object type, becomes UTF-8."""
    dtype = tf.string if values.dtype == object else tf.as_dtype(values.dtype)
    return tf.make_tensor_proto(values, dtype=dtype, shape=values.shape)
