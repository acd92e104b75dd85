from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.directions import DIRECTIONS
from serving.graph_search import ExactSearch
from serving.graphs import RetrievalModel, TowerModel
from towers.errors import ConfigError

MISSING = np.iinfo(np.int64).min


class Lookup(tf.Module):
    """The vector of row `row`, times `scale`."""

    signature: Mapping[str, tf.TensorSpec] = {
        "row": tf.TensorSpec([None], tf.int64, name="row"),
        "scale": tf.TensorSpec([None], tf.float32, name="scale"),
    }

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        super().__init__()
        self.vectors = tf.Variable(vectors)

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.gather(self.vectors, features["row"]) * features["scale"][:, tf.newaxis]
