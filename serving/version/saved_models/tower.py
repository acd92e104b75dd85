"""Tower: the SavedModel of one tower, called with raw values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.search.index import N_CPUS, Vectors
from serving.version.saved_models.names import FEATURES, past_function
from towers.errors import BundleError
from towers.features.kinds import Vector
from towers.features.packer import describe_inputs, pack
from towers.features.past_items import PastItems
from towers.features.reading import Column
from towers.features.schema import Schema, Side
from towers.features.values import missing_marker

ONE_THREAD = "SINGLE_THREADED_EXECUTOR"
"""How TensorFlow runs a graph of a hundred small operations in the least time: one after another,
with no queue between threads. It cannot run branches."""

SHARE = 256
"""Sources that a thread encodes at least, where several threads do."""

BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile"})

CALLED = attrgetter("library.function")
"""The functions that a graph calls, of its `GraphDef`."""


class Tower:
    """Turns the features of users, or of items, into their vectors."""

    def __init__(self, path: Path, *, schema: Schema, side: Side) -> None:
        """Load the SavedModel in the folder `path`, of one side of a schema.

        Raises:
            BundleError: there is none, or it is damaged.
        """
        self._path, self._model = path, load(path)
        self._graph = self._model.signatures["serving_default"]
        specs = self._graph.structured_input_signature[1]
        self._dtypes = {name: specs[name].dtype.as_numpy_dtype for name in sorted(specs)}
        """Of the features, in the order in which the graph takes them."""
        self._held = self._graph.captured_inputs
        self._threads = ThreadPoolExecutor(N_CPUS, thread_name_prefix="tower")
        self._executor = "" if _branches(self._graph) else ONE_THREAD
        types = {
            name: (
                object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype,
                spec.shape.rank,
            )
            for name, spec in specs.items()
        }
        vectors = {f.name for f in schema.features(side) if isinstance(f, Vector)}
        lengths = {name: spec.shape[1] for name, spec in specs.items() if name in vectors}
        self.inputs = describe_inputs(types, schema=schema, side=side, lengths=lengths)
        """The features by name, as `towers.features.packer.pack` takes them."""

    def share(self, other: Tower) -> None:
        """Let go of what `other` holds too: the feature table, in two towers of one version.

        Variables of equal values then have one place in memory.
        """
        known = {_key(variable): variable for variable in other.variables}
        for variable in self.variables:
            twin = known.get(_key(variable))
            if twin is not None and bool(tf.reduce_all(tf.equal(variable, twin))):
                variable.assign(twin)

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """What the tower holds."""
        found: Sequence[tf.Variable] = self._graph.variables
        return found

    def pack(self, columns: Mapping[str, Column], *, size: int) -> dict[str, NDArray[Any]]:
        """Turn `size` raw values a feature into dense arrays; one that is not given is missing.

        Raises:
            QueryError: a feature is unknown, or a value does not fit its type.
        """
        return pack(columns, inputs=self.inputs, size=size)

    def __call__(self, packed: Mapping[str, NDArray[Any]]) -> Vectors:
        """Compute vectors [size, 1 + d] float32 of packed features; of many, on all cores."""
        # NumPy's arrays, not tensors made of them one by one
        features = [np.asarray(packed[name], dtype) for name, dtype in self._dtypes.items()]
        n_shares = min(N_CPUS, len(features[0]) // SHARE)
        if n_shares <= 1:
            return self._encode(features)
        shares = zip(*(np.array_split(values, n_shares) for values in features), strict=True)
        return np.concatenate(list(self._threads.map(self._encode, shares)))

    def _encode(self, features: Sequence[NDArray[Any]]) -> Vectors:
        """The vectors of features that are in the order in which the graph takes them."""
        # the graph by its name, as calling the function binds and checks each argument once more
        (vectors,) = tf.raw_ops.StatefulPartitionedCall(
            args=[*features, *self._held],
            Tout=[tf.float32],
            f=self._graph.name,
            executor_type=self._executor,
        )
        found: Vectors = vectors.numpy()
        return found

    @property
    def adds_past_items(self) -> bool:
        """Whether items can be added to what histories know, and not only replaced."""
        return hasattr(self._model, past_function("add", ""))

    def put_past_items(self, pasts: Mapping[str, PastItems], *, how: Literal["put", "add"]) -> None:
        """Have histories know these items, beside those published.

        `put` is in place of those put before, `add` beside them too, which versions of earlier
        releases cannot; one that was published before histories could is left as it is. `pasts`
        are by the names of all histories, in the order of the features.
        """
        for number, (history, past) in enumerate(pasts.items()):
            name = past_function(how, history if number else "")
            if hasattr(self._model, name):
                bags = past.bags
                starts, rows = (part.astype(np.int64) for part in (bags.indptr, bags.indices))
                ids = tf.constant(past.ids.tolist(), self._id_dtype(past))
                given = [ids, starts, rows, bags.data.astype(np.float32)]
                vectors = [past.dense.x] if past.dense.x.shape[1] else []
                getattr(self._model, name)(*given, *vectors)

    @staticmethod
    def _id_dtype(past: PastItems) -> tf.DType:
        return tf.int64 if past.ids.dtype == np.int64 else tf.string

    @property
    def explains(self) -> bool:
        """Whether the version was published with what `active_features` needs."""
        return FEATURES in self._model.signatures

    def active_features(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """List the features that each vector is a sum of; see `active_features` in `graphs`.

        Raises:
            BundleError: the version was published before towers could tell.
        """
        if not self.explains:
            raise BundleError(
                f"{self._path}: expected a signature {FEATURES!r}, from which scores are "
                "explained, received a version published without it; publish again"
            )
        answer = self._model.signatures[FEATURES](**_tensors(packed))
        return {name: values.numpy() for name, values in answer.items()}


def load(path: Path) -> Any:
    """Load the SavedModel in the folder `path`.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    try:
        return tf.saved_model.load(str(path))
    except (OSError, tf.errors.OpError) as error:
        raise BundleError(
            f"{path}: expected a SavedModel, received {error}; publish again, or roll back to "
            "another version"
        ) from None


def _branches(function: Any) -> bool:
    """Whether a function has branches or loops, as towers of earlier releases do."""
    called = CALLED(function.graph.as_graph_def())
    return any(node.op in BRANCHES for one in called for node in one.node_def)


def _key(variable: tf.Variable) -> tuple[Any, ...]:
    """What equal variables have in common."""
    return variable.name, variable.dtype, tuple(variable.shape)


def _tensors(packed: Mapping[str, NDArray[Any]]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in packed.items()}


def join_packed(batches: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    """Put batches of packed features one after another; lists are padded to the longest."""
    if len(batches) == 1:
        return batches[0]
    joined = {}
    for name in batches[0]:
        arrays = [batch[name] for batch in batches]
        if arrays[0].ndim == 2:  # noqa: PLR2004
            longest = max(array.shape[1] for array in arrays)
            arrays = [_padded(array, longest) for array in arrays]
        joined[name] = np.concatenate(arrays)
    return joined


def _padded(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Make lists longer, by missing markers."""
    if array.shape[1] == length:
        return array
    wide = np.full((len(array), length), missing_marker(array.dtype), dtype=array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
