"""Answers calls of SavedModels with nothing but TensorFlow, and ScaNN's operations where allowed.

A program of its own: `python -I saved_model_client.py`, with a JSON object on standard input and
another on standard output. In: `models` (folders by name), `calls`, `imported` and `forbidden`
modules. Out: `answers` in the order of the calls, and by model its `custom` operations, which stock
TensorFlow does not have.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache
from operator import attrgetter
from typing import Any

import tensorflow as tf

PYTHON_ONLY = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}
"""Registered with the others, but they call back into the Python process that made the graph."""


def main() -> None:
    request = json.load(sys.stdin)
    for name in request["forbidden"]:
        if name in sys.modules:
            raise ImportError(f"{name} has come with tensorflow")
        sys.modules[name] = None  # type: ignore[assignment]  # from here on it cannot be imported
    for name in request["imported"]:
        importlib.import_module(name)
    answers = [answer(request["models"][call["model"]], call) for call in request["calls"]]
    custom = {name: custom_operations(folder) for name, folder in request["models"].items()}
    json.dump({"answers": answers, "custom": custom}, sys.stdout)


def answer(folder: str, call: dict[str, Any]) -> dict[str, Any]:
    """Call one signature; the outputs as lists, by name."""
    ask = answer_in_session if call["in_session"] else answer_eagerly
    outputs = ask(folder, call["signature"], call["inputs"])
    return {name: plain(values.tolist()) for name, values in outputs.items()}


def answer_eagerly(folder: str, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Call a signature as Python programs do."""
    function = load(folder).signatures[signature]
    dtypes = {name: spec.dtype for name, spec in function.structured_input_signature[1].items()}
    tensors = {name: tf.constant(values, dtypes[name]) for name, values in inputs.items()}
    return {name: tensor.numpy() for name, tensor in function(**tensors).items()}


def answer_in_session(folder: str, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Call a signature as TF Serving does."""
    session, meta_graph = open_session(folder)
    names = meta_graph.signature_def[signature]
    fetched = {name: info.name for name, info in names.outputs.items()}
    fed = {names.inputs[name].name: values for name, values in inputs.items()}
    found: dict[str, Any] = session.run(fetched, fed)
    return found


def custom_operations(folder: str) -> list[str]:
    """List the operations, functions included, that a stock server does not have."""
    graph = open_session(folder)[1].graph_def
    functions = attrgetter("library.function")(graph)
    used = {node.op for nodes in (graph.node, *(f.node_def for f in functions)) for node in nodes}
    own = {function.signature.name for function in functions}
    return sorted(name for name in used - own if lacks(name))


def lacks(operation: str) -> bool:
    return operation in PYTHON_ONLY or not hasattr(tf.raw_ops, operation)


@cache
def load(folder: str) -> Any:
    return tf.saved_model.load(folder)


@cache
def open_session(folder: str) -> tuple[Any, Any]:
    with tf.Graph().as_default() as graph:
        session = tf.compat.v1.Session(graph=graph)
        return session, tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)


def plain(value: Any) -> Any:
    """The same with text for bytes, at any depth."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
