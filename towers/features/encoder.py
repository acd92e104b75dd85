"""Encoder: raw feature columns to bags, as one TensorFlow graph used offline and when serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from towers.dense import Dense
from towers.features.history_column import Embed, Entries, HistoryColumn, PastBags, Tensors
from towers.features.kinds import (
    Categorical,
    Cross,
    Feature,
    History,
    MultiValued,
    Numeric,
    Trend,
    Vector,
)
from towers.features.packer import input_dtypes
from towers.features.past_items import PastItems
from towers.features.schema import Schema, Side, space_of
from towers.features.values import MISSING_INTEGER, MISSING_STRING
from towers.features.vocabulary import (
    CROSSED,
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Space,
    Tokens,
    Vocabulary,
)


class Encoder(tf.Module):
    """Encode the raw features of one side into bags, a sparse matrix x [batch, n_rows] float32.

    The numbers of vectors are none of its entries: `dense` answers them.
    """

    def __init__(
        self,
        schema: Schema,
        vocabulary: Vocabulary,
        *,
        side: Side,
        pasts: Mapping[str, PastItems] | None = None,
    ) -> None:
        """Build the lookup tables that the side's features need.

        `pasts` is what items bring to each history, by its name; by default, those of the
        vocabulary bring their ids alone.
        """
        super().__init__(name=f"{side}_encoder")
        self.n_rows, self.side = vocabulary.n_rows, side
        self._features = schema.tower_features(side)
        self._inputs = input_dtypes(schema, vocabulary, side=side)
        self._columns: dict[str, tf.Module] = {}
        for feature in self._features:
            space = vocabulary.spaces[space_of(feature, side=side, schema=schema)]
            if isinstance(feature, History) and isinstance(space, Tokens):
                items = (pasts or {}).get(feature.name) or PastItems.of_vocabulary(
                    schema, vocabulary, history=feature
                )
                column: tf.Module = HistoryColumn(feature, items, integer=space.is_integer)
            elif isinstance(feature, Cross) and isinstance(space, (Tokens, Hashed)):
                crossed = [one.name for one in schema.crossed(feature, side=side)]
                column = _CrossColumn(crossed, space)
            else:
                column = _column(feature, space)
            self._columns[feature.name] = column
        sides: tuple[Side, ...] = (side,)
        if side == "user" and any(one.vectors == "shared" for one in schema.histories):
            sides = ("user", "item")
        self._vectors = vocabulary.vectors(*sides)
        self.dense_rows = vocabulary.dense_rows(*sides)
        """The rows of the feature table that the columns of `dense` belong to."""

    @property
    def _histories(self) -> dict[str, HistoryColumn]:
        columns = self._columns.items()
        return {name: one for name, one in columns if isinstance(one, HistoryColumn)}

    @property
    def fresh_items(self) -> dict[str, PastBags]:
        """What items that came later bring to each history, by its name."""
        return {name: one.fresh for name, one in self._histories.items()}

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name: [batch], [batch, length] or, of a vector, [batch, d]."""
        return {
            name: tf.TensorSpec(
                [None] if input.rank == 1 else [None, input.length],
                tf.string if input.dtype is object else tf.as_dtype(input.dtype),
                name=name,
            )
            for name, input in self._inputs.items()
        }

    def __call__(self, features: Tensors) -> tf.SparseTensor:
        """Encode a batch; each row of x has its columns in order and none twice."""
        return self._bags(features, list(self._columns.values()))

    def without_histories(self, features: Tensors) -> tuple[tf.SparseTensor, Dense | None]:
        """Encode a batch as one whose queries have no past: x, and the numbers of own vectors."""
        columns = [one for one in self._columns.values() if not isinstance(one, HistoryColumn)]
        own = self._own_vectors(features)
        dense = Dense(tf.concat(own, axis=1), self.dense_rows.start) if own else None
        return self._bags(features, columns), dense

    def pool_histories(self, embed: Embed) -> bool:
        """Embed what items bring to histories once for all queries, for `pooled_histories`.

        `embed` must be a sum over the entries of bags. Whether there are histories.
        """
        for history in self._histories.values():
            history.pool(embed)
        return bool(self._histories)

    def pooled_histories(self, features: Tensors) -> tf.Tensor:
        """What their histories add to the vectors of queries, [batch, d]; after `pool_histories`.

        The same as `embed` of the entries of histories, to the rounding of float32, in a fraction
        of the time.
        """
        return tf.add_n([history.pooled(features) for history in self._histories.values()])

    def _bags(self, features: Tensors, columns: Sequence[tf.Module]) -> tf.SparseTensor:
        """Put the entries of some columns together."""
        batch = tf.shape(next(iter(features.values())), out_type=tf.int64)[0]
        if not columns:
            nothing = tf.zeros([0, 2], tf.int64), tf.zeros([0])
            return tf.SparseTensor(*nothing, tf.stack([batch, self.n_rows]))
        parts = [column(features) for column in columns]
        keys = tf.concat([query * self.n_rows + row for query, row, _ in parts], axis=0)
        values = tf.concat([value for *_, value in parts], axis=0)
        unique, _ = tf.unique(tf.sort(keys))
        position = tf.searchsorted(unique, keys, out_type=tf.int64)
        summed = tf.math.unsorted_segment_sum(values, position, tf.size(unique, out_type=tf.int64))
        indices = tf.stack([unique // self.n_rows, unique % self.n_rows], axis=1)
        return tf.SparseTensor(indices, summed, tf.stack([batch, self.n_rows]))

    def fields(self, features: Tensors) -> list[Entries]:
        """Encode a batch feature by feature: the entries of each, in the schema's order.

        The numbers of a vector are entries too; a history has no entries for past items' vectors.
        """
        found = []
        for feature in self._features:
            column = self._columns[feature.name]
            entries: Entries = (
                column.entries(features) if isinstance(column, _VectorColumn) else column(features)
            )
            found.append(entries)
        return found

    def dense(self, features: Tensors) -> Dense | None:
        """Encode the vectors of a batch, and those of past items; None where there are none."""
        if not self.dense_rows:
            return None
        found = self._own_vectors(features)
        past = [one for one in self._histories.values() if one.published.width]
        if past:
            found.append(tf.add_n([column.dense(features) for column in past]))
        return Dense(tf.concat(found, axis=1), self.dense_rows.start)

    def _own_vectors(self, features: Tensors) -> list[tf.Tensor]:
        """Encode the vectors of a batch but those of past items, in the order of their rows."""
        own = [one for one in self._columns.values() if isinstance(one, _VectorColumn)]
        own.sort(key=lambda column: column.space.first_row)
        return [column.dense(features) for column in own]

    def dense_fields(self, dense: Dense) -> list[Dense]:
        """Cut what `dense` has answered into one for each vector."""
        start = self.dense_rows.start
        return [
            Dense(dense.x[:, first - start : first - start + space.size], first)
            for space in self._vectors
            for first in [space.first_row]
        ]


class _TokenColumn(tf.Module):
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
            rows = np.append(space.rows, space.oov_row)
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
        positions = self.positions(tokens)
        last = tf.size(self._rows, out_type=tf.int64) - 1
        return tf.gather(self._rows, tf.where(positions < 0, last, positions))


class _CategoricalColumn(_TokenColumn):
    """One token: x = 1 on its row."""

    def __call__(self, features: Tensors) -> Entries:
        tokens = features[self._column]
        query = tf.where(self.present(tokens))[:, 0]
        rows = self.rows(tf.gather(tokens, query))
        return query, rows, tf.ones_like(rows, tf.float32)


class _CrossColumn(_TokenColumn):
    """The tokens of several columns as one: x = 1 on its row."""

    def __init__(self, columns: Sequence[str], space: Tokens | Hashed) -> None:
        super().__init__("", space)
        self._columns = list(columns)

    def __call__(self, features: Tensors) -> Entries:
        given = [features[column] for column in self._columns]
        present = tf.reduce_all(tf.stack([self.present(tokens) for tokens in given]), axis=0)
        texts = [
            tokens if tokens.dtype == tf.string else tf.strings.as_string(tokens)
            for tokens in given
        ]
        query = tf.where(present)[:, 0]
        rows = self.rows(tf.gather(tf.strings.join(texts, CROSSED), query))
        return query, rows, tf.ones_like(rows, tf.float32)


class _MultiValuedColumn(_TokenColumn):
    """Several tokens, weighted and combined."""

    def __init__(self, feature: MultiValued, space: Tokens | Hashed) -> None:
        super().__init__(feature.name, space)
        self._weights = feature.weights_name if feature.weights is not None else None
        self._combiner = feature.combiner

    def __call__(self, features: Tensors) -> Entries:
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


class _ScalarColumn(tf.Module):
    """A number: x = its scaled value on one row, within the limit that the vocabulary sets."""

    def __init__(self, column: str, space: Scalar) -> None:
        super().__init__()
        self._column, self._space = column, space

    def __call__(self, features: Tensors) -> Entries:
        numbers = features[self._column]
        query = tf.where(tf.math.is_finite(numbers))[:, 0]
        values = (tf.gather(numbers, query) - self._space.mean) / self._space.std
        limit = self._space.limit
        if limit is not None:
            values = tf.clip_by_value(values, -limit, limit)
        return query, tf.fill(tf.shape(query), tf.constant(self._space.row, tf.int64)), values


class _VectorColumn(tf.Module):
    """A vector: x = its scaled numbers, which are dense; what is missing is 0."""

    def __init__(self, column: str, space: Coordinates) -> None:
        super().__init__()
        self._column, self.space = column, space

    def __call__(self, features: Tensors) -> Entries:
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


class _BucketColumn(tf.Module):
    """A number: x = 1 on its quantile bucket's row."""

    def __init__(self, column: str, space: Buckets) -> None:
        super().__init__()
        self._column, self._space = column, space

    def __call__(self, features: Tensors) -> Entries:
        numbers = features[self._column]
        query = tf.where(tf.logical_not(tf.math.is_nan(numbers)))[:, 0]
        boundaries = tf.constant(self._space.boundaries, tf.float32)
        bucket = tf.searchsorted(boundaries, tf.gather(numbers, query), "right", tf.int64)
        return query, self._space.first_row + bucket, tf.ones_like(bucket, tf.float32)


def _widen(weights: tf.Tensor, *, like: tf.Tensor) -> tf.Tensor:
    """Pad weights [batch, n] with NaN until each token of `like` [batch, length] has one."""
    lacking = tf.maximum(tf.shape(like)[1] - tf.shape(weights)[1], 0)
    return tf.pad(weights, [[0, 0], [0, lacking]], constant_values=np.nan)


def _column(feature: Feature, space: Space) -> tf.Module:
    """Build the graph of one feature.

    Raises:
        TypeError: the vocabulary's space is not of the feature's kind.
    """
    if isinstance(feature, (Numeric, Trend)) and isinstance(space, Scalar):
        return _ScalarColumn(feature.name, space)
    if isinstance(feature, Numeric) and isinstance(space, Buckets):
        return _BucketColumn(feature.name, space)
    if isinstance(feature, Vector) and isinstance(space, Coordinates):
        return _VectorColumn(feature.name, space)
    if isinstance(feature, MultiValued) and isinstance(space, (Tokens, Hashed)):
        return _MultiValuedColumn(feature, space)
    if isinstance(feature, Categorical) and isinstance(space, (Tokens, Hashed)):
        return _CategoricalColumn(feature.name, space)
    raise TypeError(f"{feature.name}: a {feature.kind} feature cannot read {space!r}")
