"""The SavedModels: raw features in, vectors or the ids of candidates out.

What is saved loads wherever TensorFlow does; a model with a `ScannSearch` needs `import scann`
first, for its operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.search.graph_search import Search
from serving.version.saved_models.names import (
    DENSE,
    EXCLUDE,
    FEATURES,
    K,
    check_input_names,
    past_function,
)
from towers.dense import Dense
from towers.directions import Direction
from towers.features.encoder import Encoder
from towers.features.values import MISSING_INTEGER, MISSING_STRING
from towers.interactions.interaction import FM, Active, Interaction

Encode = Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
"""Answers the raw features of one side with its vectors [b, 1 + d]. A `tf.Module` that holds its
variables and tables."""


def _graph_of(call: Callable[..., Any], **options: Any) -> Any:
    """Trace a function without AutoGraph: rewriting the source takes longer than all the rest.

    So a function's Python control flow may depend on shapes that are known, but on no tensor.
    """
    return tf.function(call, autograph=False, **options)


class TowerModel(tf.Module):
    """Raw features of one side to its vectors, and to the active features that they are sums of.

    - `serving_default` answers `vector` [b, 1 + d].
    - `features` answers the active features with their parameters; see `active_features`.
    - `put_past_items`, a function of a user tower and no signature, takes what items that came
      after it was published bring to the history; of several, to the one whose name is appended.
      `add_past_items` takes some beside those taken before.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        v: tf.Variable,
        w: tf.Variable | None = None,
        interaction: Interaction | None = None,
        name: str = "tower",
    ) -> None:
        """Join a side's encoder to the feature table.

        Args:
            encoder: turns raw features into x.
            v: the vectors of the features, [n_rows, c].
            w: their first-order weights, [n_rows]; given for items, whose vectors need them.
            interaction: the member of the family; by default the factorization machine.
            name: of the module.

        Raises:
            ConfigError: a feature's name cannot be that of an input.
        """
        super().__init__(name=name)
        check_input_names(encoder.signature)
        self._encoder, self._v = encoder, v
        self._w, self._side = w, encoder.side
        self._interaction = member = interaction or FM()
        # What past items add up to is the same for all queries; explanations list it one by one.
        self._pools = (
            w is None
            and member.adds_up
            and encoder.pool_histories(
                lambda x, dense: member.user_vector(x, v, dense=dense)[:, 1:]
            )
        )
        for number, (history, fresh) in enumerate(encoder.fresh_items.items()):
            its = history if number else ""
            put = _graph_of(fresh.replace, input_signature=fresh.signature)
            add = _graph_of(fresh.add, input_signature=fresh.signature)
            setattr(self, past_function("put", its), put)
            setattr(self, past_function("add", its), add)

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """The raw features by name."""
        return self._encoder.signature

    def __call__(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Compute vectors, [b, 1 + d]."""
        if self._pools:
            x, dense, known = self._encoder.without_histories(features)
            own = self._interaction.user_vector(x, self._v, dense=dense)
            past = self._encoder.pooled_histories(features, known)
            return own + tf.pad(past, [[0, 0], [1, 0]])
        x, dense = self._encoder(features), self._encoder.dense(features)
        if self._w is None:
            return self._interaction.user_vector(x, self._v, dense=dense)
        return self._interaction.item_vector(x, self._w, self._v, dense=dense)

    def active_features(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """List what the vectors are sums of; see the function of the same name.

        Their vectors are the `Interaction.effective` ones.
        """
        found = active_features(self._encoder(features), self._v, w=self._w)
        dense = self._encoder.dense(features)
        if dense is None:
            return self._interaction.effective(found, side=self._side)
        of_vectors = [
            active_vector(one, self._v, w=self._w, interaction=self._interaction)
            for one in self._encoder.dense_fields(dense)
        ]
        for name in of_vectors[0].keys() - found.keys():
            found[name] = tf.zeros_like(found["v"])  # what is told of vectors alone
        joined = {
            name: tf.concat([values, *(one[name] for one in of_vectors)], axis=1)
            for name, values in found.items()
        }
        return self._interaction.effective(joined, side=self._side) | {DENSE: dense.x}

    def save(self, path: Path) -> None:
        """Write the SavedModel to the folder `path`."""
        vectors = _graph_of(lambda features: {"vector": self(features)})
        active = _graph_of(self.active_features)
        signatures = {
            "serving_default": vectors.get_concrete_function(self.signature),
            FEATURES: active.get_concrete_function(self.signature),
        }
        tf.saved_model.save(self, str(path), signatures=signatures)


def active_features(x: tf.SparseTensor, v: tf.Tensor, *, w: tf.Tensor | None = None) -> Active:
    """List the features that are active in x [b, n_rows], with their parameters.

    Padded to the longest list, and not one after another, so that TF Serving can batch requests and
    cut answers.

    Args:
        x: each row's columns in order.
        v: the vectors of the feature table, [n_rows, c].
        w: its first-order weights, [n_rows], where the side has them.

    Returns:
        `row` [b, m] int64, -1 in padding; `x` [b, m], `v` [b, m, c] and `w` [b, m], 0 in padding.
    """
    query, row = x.indices[:, 0], x.indices[:, 1]

    def padded(values: tf.Tensor, padding: int = 0) -> tf.Tensor:
        lists = tf.RaggedTensor.from_value_rowids(
            values, query, nrows=x.dense_shape[0], validate=False
        )
        return lists.to_tensor(tf.constant(padding, values.dtype))

    # Gathering from a variable itself would have every other reading of it make a copy of it.
    found = {
        "row": padded(row, -1),
        "x": padded(x.values),
        "v": padded(tf.gather(tf.convert_to_tensor(v), row)),
    }
    if w is not None:
        found["w"] = padded(tf.gather(tf.convert_to_tensor(w), row))
    return found


def active_vector(
    dense: Dense, v: tf.Tensor, *, w: tf.Tensor | None, interaction: Interaction
) -> Active:
    """Describe the numbers of a vector as one active feature with x = 1; see `Interaction.as_one`.

    Its row is that of the first number. Where all numbers are 0, it is padding. Shapes are those
    of `active_features`, with m = 1.
    """
    is_there = tf.reduce_any(dense.x != 0, axis=1)
    row = tf.where(is_there, tf.constant(dense.first, tf.int64), tf.constant(-1, tf.int64))
    found = {"row": row, "x": tf.cast(is_there, tf.float32)} | interaction.as_one(dense, v, w)
    return {name: values[:, tf.newaxis] for name, values in found.items()}


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
            search: a `tf.Module`, over the targets as `direction.project` makes them.
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
        queries = self._direction.project_tensor(vectors)
        rows, scores = self._search(queries, width + tf.shape(exclude)[1])
        scores += self._direction.offset_tensor(vectors)[:, tf.newaxis]
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
        given = {
            K: tf.TensorSpec([None], tf.int32, name=K),
            EXCLUDE: tf.TensorSpec([None, None], self._ids.dtype, name=EXCLUDE),
        }
        top_k = _graph_of(self._top_k).get_concrete_function(self._inputs | given)

        def default(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            batch = tf.shape(next(iter(inputs.values())))[0]
            nothing = tf.zeros([batch, 0], self._ids.dtype)
            answer: dict[str, tf.Tensor] = top_k(
                dict(inputs) | {K: tf.fill([batch], self._k), EXCLUDE: nothing}
            )
            return answer

        signatures = {
            "serving_default": _graph_of(default).get_concrete_function(self._inputs),
            "top_k": top_k,
        }
        tf.saved_model.save(self, str(path), signatures=signatures)

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
