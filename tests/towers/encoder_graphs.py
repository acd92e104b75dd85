"""The encoder's graph in its three forms: eager, in a SavedModel, and in a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import tensorflow as tf

from tests.towers.reference_encoder import Bag
from towers.features.encoder import Encoder

Graph = Callable[[Mapping[str, Any]], list[Bag]]
"""Takes packed features, gives a bag a query."""


def bags(indices: Any, values: Any, shape: Any) -> list[Bag]:
    """Cut a sparse matrix into bags; its entries must be in order, and none twice."""
    keys = [tuple(index) for index in np.asarray(indices).tolist()]
    assert keys == sorted(set(keys))
    found: list[Bag] = [{} for _ in range(int(shape[0]))]
    for (query, row), value in zip(keys, np.asarray(values).tolist(), strict=True):
        assert 0 <= row < int(shape[1])
        found[query][row] = value
    return found


def eager_graph(encoder: Encoder) -> Graph:
    def run(features: Mapping[str, Any]) -> list[Bag]:
        x = encoder(features)
        return bags(x.indices, x.values, x.dense_shape)

    return run


def saved_graph(path: str) -> Graph:
    loaded = tf.saved_model.load(path)
    _, inputs = loaded.signatures["serving_default"].structured_input_signature

    def run(features: Mapping[str, Any]) -> list[Bag]:
        tensors = {name: tf.constant(features[name], spec.dtype) for name, spec in inputs.items()}
        x = loaded.signatures["serving_default"](**tensors)
        return bags(x["indices"], x["values"], x["shape"])

    return run


def session_graph(path: str, stack: ExitStack) -> Graph:
    """Load as TensorFlow Serving does: a session, its tables filled by the restore op."""
    session = stack.enter_context(closing(tf.compat.v1.Session(graph=tf.Graph())))
    with session.graph.as_default():
        model = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
    signature = model.signature_def["serving_default"]
    outputs = {name: tensor.name for name, tensor in signature.outputs.items()}

    def run(features: Mapping[str, Any]) -> list[Bag]:
        feed = {signature.inputs[name].name: value for name, value in features.items()}
        x = session.run(outputs, feed)
        return bags(x["indices"], x["values"], x["shape"])

    return run


def save(encoder: Encoder, path: str) -> None:
    """Put an encoder into a SavedModel that answers with the parts of its sparse matrix."""
    module = tf.Module()
    module.encoder = encoder

    @tf.function(autograph=False)
    def encode(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        x = encoder(features)
        return {"indices": x.indices, "values": x.values, "shape": x.dense_shape}

    signature = encode.get_concrete_function(**encoder.signature)
    tf.saved_model.save(module, path, signatures={"serving_default": signature})
