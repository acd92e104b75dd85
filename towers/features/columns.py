"""Columns: each feature's values to entries of bags, as TensorFlow graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from towers.features.history_column import Entries, Tensors, true_places
from towers.features.kinds import Categorical, Feature, MultiValued, Numeric, Trend, Vector
from towers.features.values import MISSING_INTEGER, MISSING_STRING
from towers.features.vocabulary import (
    CROSSED,
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Space,
    Tokens,
)


class TokenColumn(tf.Module):
    """Tokens to rows, through a lookup table or a hash."""

    def __init__(self, column: str, space: Tokens | Hashed) -> None:
        super().__init__()
        self._column, self._space = column, space
        if isinstance(space, Tokens):
            dtype = tf.int64 if space.is_integer else tf.string
            self._table = tf.lookup.experimental.MutableHashTable(dtype, tf.int64, -1)
            if len(space.tokens):
                positions = tf.range(len(space.tokens), dtype=tf.int64)
                self._table.insert(tf.constant(space.tokens, dtype), positions)
            rows = np.append(space.oov_row, space.rows)  # an unknown token has the position -1
            self._rows = tf.Variable(rows, trainable=False, name="rows")

    def present(self, tokens: tf.Tensor) -> tf.Tensor:
        """Whether a token is there at all, bool of the same shape."""
        marker = MISSING_STRING if tokens.dtype == tf.string else MISSING_INTEGER
        return tf.not_equal(tokens, tf.constant(marker, tokens.dtype))

    def positions(self, tokens: tf.Tensor) -> tf.Tensor:
        """Positions of the tokens in the vocabulary, -1 for an unknown one."""
        return self._table.lookup(tokens)

    def rows(self, tokens: tf.Tensor) -> tf.Tensor:
        """Rows of the feature table for present tokens, int64 of the same shape."""
        if isinstance(self._space, Hashed):
            hashed = tf.strings.to_hash_bucket_fast(tokens, self._space.buckets)
            return self._space.first_row + hashed
        return tf.gather(self._rows, self.positions(tokens) + 1)


class CategoricalColumn(TokenColumn):
    """One token: x = 1 on its row."""

    def __call__(self, features: Tensors) -> Entries:
        """List the entries of a batch's queries."""
        tokens = features[self._column]
        query = true_places(self.present(tokens))
        rows = self.rows(tf.gather(tokens, query))
        return query, rows, tf.ones_like(rows, tf.float32)


class CrossColumn(TokenColumn):
    """The tokens of several columns as one: x = 1 on its row."""

    def __init__(self, columns: Sequence[str], space: Tokens | Hashed) -> None:
        super().__init__("", space)
        self._columns = list(columns)

    def __call__(self, features: Tensors) -> Entries:
        """List the entries of a batch's queries."""
        given = [features[column] for column in self._columns]
        present = tf.reduce_all(tf.stack([self.present(tokens) for tokens in given]), axis=0)
        texts = [
            tokens if tokens.dtype == tf.string else tf.strings.as_string(tokens)
            for tokens in given
        ]
        query = true_places(present)
        rows = self.rows(tf.gather(tf.strings.join(texts, CROSSED), query))
        return query, rows, tf.ones_like(rows, tf.float32)


class MultiValuedColumn(TokenColumn):
    """Several tokens, weighted and combined."""

    def __init__(self, feature: MultiValued, space: Tokens | Hashed) -> None:
        super().__init__(feature.name, space)
        self._weights = feature.weights_name if feature.weights is not None else None
        self._combiner = feature.combiner

    def __call__(self, features: Tensors) -> Entries:
        """List the entries of a batch's queries."""
        tokens = features[self._column]
        where = tf.where(self.present(tokens))
        rows = self.rows(tf.gather_nd(tokens, where))
        weights = tf.ones_like(rows, tf.float32)
        if self._weights is not None:
            given = tf.gather_nd(_widen(features[self._weights], like=tokens), where)
            weights = tf.where(tf.math.is_finite(given), given, weights)
        batch = tf.shape(tokens)[0]
        return where[:, 0], rows, weights * self._scale(weights, where[:, 0], batch)

    def _scale(self, weights: tf.Tensor, query: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        if self._combiner == "sum":
            return tf.ones_like(weights)
        size = tf.abs(weights) if self._combiner == "mean" else tf.square(weights)
        total = tf.gather(tf.math.unsorted_segment_sum(size, query, batch), query)
        return tf.math.divide_no_nan(
            tf.ones_like(total), total if self._combiner == "mean" else tf.sqrt(total)
        )


class ScalarColumn(tf.Module):
    """A number: x = its scaled value on one row, within the limit that the vocabulary sets."""

    def __init__(self, column: str, space: Scalar) -> None:
        super().__init__()
        self._column, self._space = column, space

    def __call__(self, features: Tensors) -> Entries:
        """List the entries of a batch's queries."""
        numbers = features[self._column]
        query = true_places(tf.math.is_finite(numbers))
        values = (tf.gather(numbers, query) - self._space.mean) / self._space.std
        limit = self._space.limit
        if limit is not None:
            values = tf.clip_by_value(values, -limit, limit)
        return query, tf.fill(tf.shape(query), tf.constant(self._space.row, tf.int64)), values


class VectorColumn(tf.Module):
    """A vector: x = its scaled numbers, which are dense; what is missing is 0."""

    def __init__(self, column: str, space: Coordinates) -> None:
        super().__init__()
        self._column, self.space = column, space

    def __call__(self, features: Tensors) -> Entries:
        """List nothing: the numbers are dense."""
        nothing = tf.zeros([0], tf.int64)
        return nothing, nothing, tf.zeros([0], tf.float32)

    def entries(self, features: Tensors) -> Entries:
        """The same numbers as sparse entries."""
        x = self.dense(features)
        where = tf.where(x != 0.0)
        return where[:, 0], self.space.first_row + where[:, 1], tf.gather_nd(x, where)

    def dense(self, features: Tensors) -> tf.Tensor:
        """The values of the rows of the space, [batch, size]."""
        numbers, space = features[self._column], self.space
        values = tf.where(tf.math.is_finite(numbers), numbers, 0.0)
        if space.is_unit:
            return tf.math.divide_no_nan(values, tf.norm(values, axis=1, keepdims=True))
        if space.means:
            values = (values - np.array(space.means, np.float32)) / np.array(space.stds, np.float32)
        return tf.where(tf.math.is_finite(numbers), values, 0.0)


class BucketColumn(tf.Module):
    """A number: x = 1 on its quantile bucket's row."""

    def __init__(self, column: str, space: Buckets) -> None:
        super().__init__()
        self._column, self._space = column, space

    def __call__(self, features: Tensors) -> Entries:
        """List the entries of a batch's queries."""
        numbers = features[self._column]
        query = true_places(tf.logical_not(tf.math.is_nan(numbers)))
        boundaries = tf.constant(self._space.boundaries, tf.float32)
        bucket = tf.searchsorted(boundaries, tf.gather(numbers, query), "right", tf.int64)
        return query, self._space.first_row + bucket, tf.ones_like(bucket, tf.float32)


def _widen(weights: tf.Tensor, *, like: tf.Tensor) -> tf.Tensor:
    """Pad weights [batch, n] with NaN until each token of `like` [batch, length] has one."""
    lacking = tf.maximum(tf.shape(like)[1] - tf.shape(weights)[1], 0)
    return tf.pad(weights, [[0, 0], [0, lacking]], constant_values=np.nan)


def make_column(feature: Feature, space: Space) -> tf.Module:
    """Build the graph of one feature.

    Raises:
        TypeError: the vocabulary's space is not of the feature's kind.
    """
    if isinstance(feature, (Numeric, Trend)) and isinstance(space, Scalar):
        return ScalarColumn(feature.name, space)
    if isinstance(feature, Numeric) and isinstance(space, Buckets):
        return BucketColumn(feature.name, space)
    if isinstance(feature, Vector) and isinstance(space, Coordinates):
        return VectorColumn(feature.name, space)
    if isinstance(feature, MultiValued) and isinstance(space, (Tokens, Hashed)):
        return MultiValuedColumn(feature, space)
    if isinstance(feature, Categorical) and isinstance(space, (Tokens, Hashed)):
        return CategoricalColumn(feature.name, space)
    raise TypeError(f"{feature.name}: a {feature.kind} feature cannot read {space!r}")
