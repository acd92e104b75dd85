"""Reads the warm-up requests of a SavedModel, as TF Serving does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.version.saved_models.first_requests import RECORDS


def read_warmup(folder: Path) -> Iterator[PredictRequest]:
    """The requests for the SavedModel in `folder`."""
    for record in tf.data.TFRecordDataset(str(folder / RECORDS)).as_numpy_iterator():
        yield PredictionLog.FromString(record).predict_log.request
