"""Check a bundle before it is published: open it as a reader would, and ask it questions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from serving.retrieval.retriever import Retriever
from serving.version.bundle import Bundle
from serving.version.saved_models.names import (
    EXCLUDE,
    EXPLAIN,
    FEATURES,
    ITEM,
    QUERY,
    RANK,
    RECALL,
    K,
    rank_input,
)
from towers.directions import DIRECTIONS, Direction
from towers.errors import BundleError, RecallError
from towers.features.schema import SIDES, Side

BROKEN = (
    RecallError,
    tf.errors.OpError,
    pa.ArrowException,
    DecodeError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading files that are not as they should be may end in."""


def check_bundle(bundle: Bundle) -> Retriever:
    """Ask a bundle one question in each direction, and compare its SavedModels with its schema.

    The towers are called too, for someone of whom nothing is known. The models of the directions
    are not loaded, as each holds an index.

    Returns:
        The version, open.

    Raises:
        BundleError: something of it cannot be read, or does not answer as it should.
    """
    what = "the files"
    try:
        retriever = Retriever(bundle)
        for name, direction in DIRECTIONS.items():
            what = f"a question in direction {name}"
            _ask(retriever, direction)
        what = "the towers"
        retriever.warm()
        for name in bundle.models:
            what = f"the SavedModel {name}"
            _check_signatures(bundle, name, _expected(bundle, name))
    except BROKEN as error:
        raise BundleError(
            f"version {bundle.version}: expected a version that can be opened and answers, but "
            f"{what} failed: {error}; nothing was published"
        ) from error
    return retriever


def _ask(retriever: Retriever, direction: Direction) -> None:
    """Ask for the best targets of the first source, with every column of their table.

    Raises:
        BundleError: the answer is not what a reader may expect.
    """
    sources, targets = (retriever.catalogue(side) for side in (direction.source, direction.target))
    if not sources.size or not targets.size:
        return
    (id,) = sources.ids(np.zeros(1, dtype=np.int64)).tolist()
    hits = retriever.retrieve(direction.name, id=id, k=1)
    expected = min(1, targets.size - direction.is_similarity)
    shown = [f"{direction.target}.{column}" for column in targets.columns[1:]]
    if len(hits) != expected or list(hits.columns) != ["id", "score", *shown]:
        raise BundleError(
            f"expected {expected} hit with the columns {shown}, received {len(hits)} with "
            f"{list(hits.columns)}"
        )
    if not np.isfinite(hits["score"]).all():
        raise BundleError(f"expected finite scores, received {hits['score'].tolist()}")


def _expected(bundle: Bundle, name: str) -> dict[str, set[str]]:
    """The inputs of each signature of a SavedModel, by the schema."""
    schema, direction = bundle.manifest.schema, DIRECTIONS.get(name)
    if name == RANK:
        inputs = {rank_input(side, one) for side in SIDES for one in schema.input_names(side)}
        return dict.fromkeys(("serving_default", EXPLAIN), inputs | {QUERY, ITEM, RECALL})
    side: Side = "user" if name == "user_tower" else "item"
    inputs = set(schema.input_names(direction.source if direction else side))
    more = {"top_k": inputs | {K, EXCLUDE}} if direction else {FEATURES: inputs}
    return {"serving_default": inputs} | more


def _check_signatures(bundle: Bundle, name: str, expected: Mapping[str, set[str]]) -> None:
    """Compare the inputs of a SavedModel's signatures with those expected.

    Raises:
        BundleError: they differ, or a signature is missing.
    """
    saved = SavedModel.FromString((bundle.model(name) / "saved_model.pb").read_bytes())
    received = {
        signature: set(definition.inputs)
        for signature, definition in saved.meta_graphs[0].signature_def.items()
        if not signature.startswith("__")  # TensorFlow's own
    }
    if received != expected:
        raise BundleError(f"expected signatures with the inputs {expected}, received {received}")
