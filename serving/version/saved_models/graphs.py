"""The SavedModels: raw features in, vectors or the ids of candidates out.

What is saved loads wherever TensorFlow does; a model with a `ScannSearch` needs `import scann`
first, for its operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.search.graph_search import Search
from serving.version.saved_models.names import EXCLUDE, FEATURES, K, check_input_names
from towers.directions import Direction
from towers.vocabulary import MISSING_INTEGER, MISSING_STRING

Encode = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
"""Answers the raw features of one side with its vectors [b, 1 + d]. A `tf.Module` that holds its
variables and tables."""


class TowerFunction(Protocol):
    """One side's tower. A `tf.Module` that holds its variables and tables."""

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Answer raw features with their vectors [b, 1 + d]."""
        ...

    def bags(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """Answer raw features with what their vectors are sums of; see `padded_bags`."""
        ...


class TowerModel(tf.Module):
    """Features to vectors, and to what the vectors are made of.

    - `serving_default` answers `vector` [b, 1 + d].
    - `features` answers the bags that the features are encoded as, with the parameters of their
      entries: `row`, `x` and `v`, and of items `w`; see `padded_bags`.
    """

    def __init__(self, encode: TowerFunction, *, signature: Mapping[str, tf.TensorSpec]) -> None:
        """Export `encode`.

        Args:
            encode: a `tf.Module`.
            signature: the features by name.

        Raises:
            ConfigError: a feature's name cannot be that of an input.
        """
        super().__init__()
        check_input_names(signature)
        self._encode, self._inputs = encode, dict(signature)

    def save(self, path: Path) -> None:
        """Write the SavedModel to the folder `path`."""
        vectors = tf.function(lambda features: {"vector": self._encode(features)})
        bags = tf.function(self._encode.bags)
        signatures = {
            "serving_default": vectors.get_concrete_function(self._inputs),
            FEATURES: bags.get_concrete_function(self._inputs),
        }
        tf.saved_model.save(self, str(path), signatures=signatures)


def padded_bags(
    x: tf.SparseTensor, v: tf.Tensor, *, w: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """List the entries of bags x [b, n_rows] with their parameters, padded to the longest.

    Padded, and not one after another, so that TF Serving can batch requests and cut answers.

    Args:
        x: each bag's columns in order.
        v: the vectors of the feature table, [n_rows, d].
        w: its first-order weights, [n_rows], where the side has them.

    Returns:
        `row` [b, m] int64, -1 in padding; `x` [b, m], `v` [b, m, d] and `w` [b, m], 0 in padding.
    """
    bag, row = x.indices[:, 0], x.indices[:, 1]

    def padded(values: tf.Tensor, padding: int = 0) -> tf.Tensor:
        lists = tf.RaggedTensor.from_value_rowids(
            values, bag, nrows=x.dense_shape[0], validate=False
        )
        return lists.to_tensor(tf.constant(padding, values.dtype))

    # Gathering from a variable itself would have every other reading of it make a copy of it.
    bags = {
        "row": padded(row, -1),
        "x": padded(x.values),
        "v": padded(tf.gather(tf.convert_to_tensor(v), row)),
    }
    if w is not None:
        bags["w"] = padded(tf.gather(tf.convert_to_tensor(w), row))
    return bags


class RetrievalModel(tf.Module):
    """Features to candidates: the tower of the source and an index of the targets, in one graph.

    Both signatures answer `ids` and `scores` [b, min(largest k, size)], best first, padded with
    `""` (the smallest int64) and -inf:

    - `serving_default`: the features; k is that of the export.
    - `top_k`: the features, `k` [b] int32, each query's own, and `exclude` [b, m], ids that are not
      to come, padded with any id that does not exist. As many others come as there are, up to k.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        signature: Mapping[str, tf.TensorSpec],
        direction: Direction,
        search: Search,
        ids: NDArray[Any],
        k: int,
        own_id: str | None = None,
    ) -> None:
        """Join the tower of a direction's source to a search over its targets.

        Args:
            encode: a `tf.Module`.
            signature: the features by name.
            direction: what is searched, and how it is scored.
            search: a `tf.Module`, over `direction.corpus` of the targets.
            ids: the targets' ids by row, int64 or str.
            k: how many candidates `serving_default` returns.
            own_id: the feature that holds the source's own id, which is left out of the answer; for
                a source that is one of the targets.

        Raises:
            ConfigError: a feature's name cannot be that of an input.
        """
        super().__init__()
        check_input_names(signature)
        self._encode, self._search, self._direction = encode, search, direction
        self._inputs, self._own_id, self._k = dict(signature), own_id, k
        self._ids = tf.Variable(ids, trainable=False, name="ids")
        no_id = MISSING_STRING if self._ids.dtype == tf.string else MISSING_INTEGER
        self._no_id = tf.constant(no_id, self._ids.dtype)

    def __call__(
        self, features: Mapping[str, tf.Tensor], *, k: tf.Tensor, exclude: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Find candidates; see the class."""
        tf.debugging.assert_positive(k, f"{K}: expected at least 1")
        tf.debugging.assert_equal(tf.size(k), tf.shape(exclude)[0], f"{K}: expected one a query")
        width = tf.minimum(tf.reduce_max(tf.concat([k, [1]], axis=0)), self._ids.shape[0])
        if self._own_id is not None:
            exclude = tf.concat([exclude, features[self._own_id][:, tf.newaxis]], axis=1)
        vectors = self._encode(features)
        queries = self._direction.queries(vectors)
        rows, scores = self._search(queries, width + tf.shape(exclude)[1])
        scores += self._direction.constant(vectors)[:, tf.newaxis]
        ids = tf.gather(self._ids, tf.maximum(rows, 0))
        unwanted = (rows < 0) | self._is_among(ids, exclude)
        order = tf.argsort(tf.cast(unwanted, tf.int32), axis=1, stable=True)[:, :width]
        unwanted = tf.gather(unwanted, order, batch_dims=1) | (tf.range(width) >= k[:, tf.newaxis])
        ids, scores = (tf.gather(found, order, batch_dims=1) for found in (ids, scores))
        return {
            "ids": tf.where(unwanted, self._no_id, ids),
            "scores": tf.where(unwanted, -np.inf, scores),
        }

    def save(self, path: Path) -> None:
        """Write the SavedModel to the folder `path`."""
        default = tf.function(self._default).get_concrete_function(self._inputs)
        given = {
            K: tf.TensorSpec([None], tf.int32, name=K),
            EXCLUDE: tf.TensorSpec([None, None], self._ids.dtype, name=EXCLUDE),
        }
        top_k = tf.function(self._top_k).get_concrete_function(self._inputs | given)
        signatures = {"serving_default": default, "top_k": top_k}
        tf.saved_model.save(self, str(path), signatures=signatures)

    def _default(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch = tf.shape(next(iter(inputs.values())))[0]
        nothing = tf.zeros([batch, 0], self._ids.dtype)
        return self(inputs, k=tf.fill([batch], self._k), exclude=nothing)

    def _top_k(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features = {name: inputs[name] for name in self._inputs}
        return self(features, k=inputs[K], exclude=inputs[EXCLUDE])

    def _is_among(self, ids: tf.Tensor, exclude: tf.Tensor) -> tf.Tensor:
        """Whether each of `ids` [b, n] is one of its query's `exclude` [b, m]."""
        nobody = tf.fill([tf.shape(exclude)[0], 1], self._no_id)
        listed = tf.sort(_keys(tf.concat([exclude, nobody], axis=1)), axis=1)
        keys = _keys(ids)
        after = tf.searchsorted(listed, keys, side="right")
        return after > tf.searchsorted(listed, keys, side="left")


def _keys(ids: tf.Tensor) -> tf.Tensor:
    """Numbers to sort ids by: themselves, or 63 bits of a text's hash; int64.

    Among a thousand texts, two share a hash once in 10^13 times.
    """
    if ids.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(ids, 2**63 - 1)
    return ids
