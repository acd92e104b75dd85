"""Encoder: raw feature columns to bags, as one TensorFlow graph used offline and when serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from towers.dense import Dense
from towers.features.packer import input_dtypes
from towers.features.past_items import PastItems
from towers.features.schema import (
    Categorical,
    Cross,
    Feature,
    History,
    MultiValued,
    Numeric,
    Schema,
    Side,
    Trend,
    Vector,
    space_of,
)
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

Tensors = Mapping[str, tf.Tensor]


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
        self.n_rows = vocabulary.n_rows
        self._features = schema.tower_features(side)
        self._inputs = input_dtypes(schema, vocabulary, side=side)
        self._columns: dict[str, tf.Module] = {}
        for feature in self._features:
            space = vocabulary.spaces[space_of(feature, side=side, schema=schema)]
            if isinstance(feature, History) and isinstance(space, Tokens):
                items = (pasts or {}).get(feature.name) or PastItems.of_vocabulary(
                    schema, vocabulary, history=feature
                )
                column: tf.Module = _HistoryColumn(feature, items, integer=space.is_integer)
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
    def fresh_items(self) -> dict[str, _PastBags]:
        """What items that came later bring to each history, by its name."""
        columns = self._columns.items()
        return {name: one.fresh for name, one in columns if isinstance(one, _HistoryColumn)}

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
        batch = tf.shape(next(iter(features.values())), out_type=tf.int64)[0]
        parts = [self._columns[feature.name](features) for feature in self._features]
        keys = tf.concat([query * self.n_rows + row for query, row, _ in parts], axis=0)
        values = tf.concat([value for *_, value in parts], axis=0)
        unique, _ = tf.unique(tf.sort(keys))
        position = tf.searchsorted(unique, keys, out_type=tf.int64)
        summed = tf.math.unsorted_segment_sum(values, position, tf.size(unique, out_type=tf.int64))
        indices = tf.stack([unique // self.n_rows, unique % self.n_rows], axis=1)
        return tf.SparseTensor(indices, summed, tf.stack([batch, self.n_rows]))

    def dense(self, features: Tensors) -> Dense | None:
        """Encode the vectors of a batch, and those of past items; None where there are none."""
        if not self.dense_rows:
            return None
        columns = self._columns.values()
        own = [column for column in columns if isinstance(column, _VectorColumn)]
        own.sort(key=lambda column: column.space.first_row)
        past = [one for one in columns if isinstance(one, _HistoryColumn) and one.published.width]
        found = [column.dense(features) for column in own]
        if past:
            found.append(tf.add_n([column.dense(features) for column in past]))
        return Dense(tf.concat(found, axis=1), self.dense_rows.start)

    def dense_fields(self, dense: Dense) -> list[Dense]:
        """Cut what `dense` has answered into one for each vector."""
        start = self.dense_rows.start
        return [
            Dense(dense.x[:, first - start : first - start + space.size], first)
            for space in self._vectors
            for first in [space.first_row]
        ]


Entries = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Query positions int64, feature rows int64 and values float32, each [n]."""


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


class _PastBags(tf.Module):
    """What some items bring to histories, by their ids; more can be put in."""

    def __init__(self, past: PastItems, *, integer: bool) -> None:
        super().__init__()
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.int64 if integer else tf.string, tf.int64, -1
        )
        starts, rows = (part.astype(np.int64) for part in (past.bags.indptr, past.bags.indices))
        self._starts = tf.Variable(starts, trainable=False, name="past_starts", shape=[None])
        self._rows = tf.Variable(rows, trainable=False, name="past_rows", shape=[None])
        self._x = tf.Variable(past.bags.data, trainable=False, name="past_x", shape=[None])
        self.width = past.dense.x.shape[1]
        if self.width:
            shape = [None, self.width]
            self._dense = tf.Variable(past.dense.x, False, name="past_dense", shape=shape)
        brings = np.flatnonzero(past.brings)  # others are as good as unknown
        ids = past.ids[brings].tolist()
        if ids:
            keys = tf.constant(ids if integer else [str(one) for one in ids])
            self._table.insert(tf.cast(keys, self._table.key_dtype), tf.constant(brings))

    @property
    def signature(self) -> list[tf.TensorSpec]:
        """What `replace` takes."""
        ids = tf.TensorSpec([None], self._table.key_dtype)
        whole = tf.TensorSpec([None], tf.int64)
        bags = [ids, whole, whole, tf.TensorSpec([None], tf.float32)]
        dense = tf.TensorSpec([None, self.width], tf.float32)
        return [*bags, dense] if self.width else bags

    def replace(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        rows: tf.Tensor,
        x: tf.Tensor,
        dense: tf.Tensor | None = None,
    ) -> None:
        """Hold the items `ids` [n], with bags as of a CSR matrix, in place of those held.

        `dense` [n, m] are their vectors, where items have some.
        """
        self._starts.assign(starts)
        self._rows.assign(rows)
        self._x.assign(x)
        if dense is not None:
            self._dense.assign(dense)
        self._table.insert(ids, tf.range(tf.size(ids, tf.int64), dtype=tf.int64))

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Where the items are, -1 for unknown ones; int64 of the same shape."""
        return self._table.lookup(ids)

    def entries(self, positions: tf.Tensor) -> Entries:
        """List what the items at `positions` [n] bring: place in `positions`, row and value."""
        starts = tf.convert_to_tensor(self._starts)
        first = tf.gather(starts, tf.maximum(positions, 0))
        last = tf.gather(starts, tf.maximum(positions + 1, 0))
        spans = tf.ragged.range(first, tf.where(positions < 0, first, last))
        entry = spans.flat_values
        return spans.value_rowids(), tf.gather(self._rows, entry), tf.gather(self._x, entry)

    def dense(self, positions: tf.Tensor) -> tf.Tensor:
        """What the items at `positions` [n] bring of vectors, [n, m]; 0 for unknown ones."""
        held = tf.convert_to_tensor(self._dense)
        known = tf.where(positions >= 0)
        x = tf.gather(held, tf.gather_nd(positions, known))
        shape = tf.stack([tf.size(positions, tf.int64), self.width])
        return tf.scatter_nd(known, x, shape)


class _HistoryColumn(tf.Module):
    """Past items: the sum of what the latest n of them bring, times 1/sqrt(n)."""

    def __init__(self, feature: History, past: PastItems, *, integer: bool) -> None:
        super().__init__()
        self._column, self._latest = feature.name, feature.latest
        self.published = _PastBags(past, integer=integer)
        self.fresh = _PastBags(past.take(slice(0, 0)), integer=integer)

    def __call__(self, features: Tensors) -> Entries:
        query, scale, found = self._latest_items(features[self._column])
        entries = [bags.entries(positions) for bags, positions in found]
        place, rows, x = (tf.concat(parts, axis=0) for parts in zip(*entries, strict=True))
        return tf.gather(query, place), rows, x * tf.gather(scale, place)

    def dense(self, features: Tensors) -> tf.Tensor:
        """Sum what they bring of vectors, [batch, m]."""
        ids = features[self._column]
        query, scale, found = self._latest_items(ids)
        x = tf.add_n([bags.dense(positions) for bags, positions in found])
        return tf.math.unsorted_segment_sum(x * scale[:, tf.newaxis], query, tf.shape(ids)[0])

    def _latest_items(
        self, ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tuple[_PastBags, tf.Tensor]]]:
        """Of each query's ids, the latest that are known: queries [n], 1/sqrt(n) and positions."""
        published = self.published.positions(ids)
        fresh = tf.where(published < 0, self.fresh.positions(ids), -1)
        known = tf.maximum(published, fresh) >= 0
        from_end = tf.cumsum(tf.cast(known, tf.int32), axis=1, reverse=True)
        where = tf.where(known & (from_end <= self._latest))
        query, ones = where[:, 0], tf.ones_like(where[:, 0], tf.float32)
        n = tf.math.unsorted_segment_sum(ones, query, tf.shape(ids)[0])
        found = [
            (bags, tf.gather_nd(positions, where))
            for bags, positions in ((self.published, published), (self.fresh, fresh))
        ]
        return query, tf.math.rsqrt(tf.gather(n, query)), found


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
