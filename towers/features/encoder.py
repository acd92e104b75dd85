"""Encoder: raw feature columns to bags, as one TensorFlow graph used offline and when serving."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from towers.dense import Dense
from towers.features.columns import CrossColumn, VectorColumn, make_column
from towers.features.history_column import (
    Embed,
    Entries,
    HistoryColumn,
    PastBags,
    Tensors,
    true_places,
)
from towers.features.kinds import Cross, History, Vector
from towers.features.packer import input_dtypes
from towers.features.past_items import PastItems
from towers.features.schema import Schema, Side, space_of
from towers.features.vocabulary import DEFAULT_USER, NEWCOMER, Hashed, Tokens, Vocabulary


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
                column = CrossColumn(crossed, space)
            else:
                column = make_column(feature, space)
            self._columns[feature.name] = column
        self._oov_rows = _oov_rows(schema, vocabulary, side=side)
        self._default_row = vocabulary.default_user_row if side == "user" else None
        self._newcomer_row = vocabulary.newcomer_row if side == "user" else None
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
        parts = {name: column(features) for name, column in self._columns.items()}
        if self._default_row is not None:
            has_past = tf.zeros([_batch_size(features)], tf.bool)
            for history in self._histories.values():
                has_past |= history.has_items(features)
            described = self._are_described(parts, features)
            parts[DEFAULT_USER] = _where(~(has_past | described), self._default_row)
            if self._newcomer_row is not None:
                parts[NEWCOMER] = _where(described & ~has_past, self._newcomer_row)
        return self._put_together(parts, features)

    def without_histories(
        self, features: Tensors
    ) -> tuple[tf.SparseTensor, Dense | None, tf.Tensor]:
        """Encode what queries give beside their past: x, and the numbers of own vectors.

        x is in no order, and has a column twice that a query gives twice: to sums, which its like
        is for, that is all the same. The default user and newcomers are not in x. Whose user is
        known by it, [batch] bool, comes third.
        """
        histories = self._histories
        parts = {
            name: column(features)
            for name, column in self._columns.items()
            if name not in histories
        }
        own = self._own_vectors(features)
        dense = Dense(tf.concat(own, axis=1), self.dense_rows.start) if own else None
        query, row, values = _joined(parts)
        shape = tf.stack([tf.cast(_batch_size(features), tf.int64), self.n_rows])
        x = tf.SparseTensor(tf.stack([query, row], axis=1), values, shape)
        return x, dense, self._are_described(parts, features)

    def pool_histories(self, embed: Embed) -> bool:
        """Embed what items bring to histories once for all queries, for `pooled_histories`.

        `embed` must be a sum over the entries of bags. Whether there are histories.
        """
        for history in self._histories.values():
            history.pool(embed)
        rows = {"default_user": self._default_row, "newcomer": self._newcomer_row}
        self._stand_ins = {
            name: tf.Variable(
                embed(tf.SparseTensor([[0, row]], [1.0], [1, self.n_rows]), None),
                trainable=False,
                name=name,
            )
            for name, row in rows.items()
            if row is not None
        }
        return bool(self._histories)

    def pooled_histories(self, features: Tensors, known: tf.Tensor) -> tf.Tensor:
        """What their histories add to the vectors of queries, [batch, d]; after `pool_histories`.

        The same as `embed` of the entries of histories, to the rounding of float32, in a fraction
        of the time. To queries without a past, a newcomer, or the default user where they are not
        `known` [batch] either.
        """
        found = [history.pooled(features) for history in self._histories.values()]
        sums = tf.add_n([vectors for vectors, _ in found])
        has_past = found[0][1]
        for _, has_items in found[1:]:
            has_past |= has_items
        for name, has_it in {
            "newcomer": known & ~has_past,
            "default_user": ~(known | has_past),
        }.items():
            if name in self._stand_ins:
                sums = tf.where(has_it[:, tf.newaxis], self._stand_ins[name], sums)
        return sums

    def _are_described(self, parts: Mapping[str, Entries], features: Tensors) -> tf.Tensor:
        """Of which queries something is known besides the past, [batch] bool.

        `parts` are the entries of columns by name, of which those of the context do not count.
        """
        telling = {
            name: (query, row, tf.cast(row != self._oov_rows[name], tf.float32))
            for name, (query, row, _) in parts.items()
            if name in self._oov_rows
        }
        query, _, tells = _joined(telling)
        described = tf.math.unsorted_segment_sum(tells, query, _batch_size(features)) > 0
        for x in self._own_vectors(features):
            described |= tf.reduce_any(x != 0.0, axis=1)
        return described

    def _put_together(self, parts: Mapping[str, Entries], features: Tensors) -> tf.SparseTensor:
        """Make one sparse matrix of the entries of some columns."""
        batch = tf.cast(_batch_size(features), tf.int64)
        query, row, values = _joined(parts)
        keys = query * self.n_rows + row
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
                column.entries(features) if isinstance(column, VectorColumn) else column(features)
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
        own = [one for one in self._columns.values() if isinstance(one, VectorColumn)]
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


def _joined(parts: Mapping[str, Entries]) -> Entries:
    """The entries of some columns, one column's after another's."""
    nothing = tf.zeros([0], tf.int64)
    several = [(nothing, nothing, tf.zeros([0])), *parts.values()]
    query, row, x = (tf.concat(one, axis=0) for one in zip(*several, strict=True))
    return query, row, x


def _where(has_it: tf.Tensor, row: int) -> Entries:
    """The entries of a feature, x = 1, of the queries that have it, [batch] bool."""
    query = true_places(has_it)
    rows = tf.fill(tf.shape(query), tf.constant(row, tf.int64))
    return query, rows, tf.ones_like(rows, tf.float32)


def _batch_size(features: Tensors) -> tf.Tensor:
    """The number of queries, a scalar int32."""
    return tf.shape(next(iter(features.values())))[0]


def _oov_rows(schema: Schema, vocabulary: Vocabulary, *, side: Side) -> dict[str, int]:
    """The row of unknown tokens of each feature of a side that can tell who is asked for.

    -1 for one that has none. A history is asked itself.
    """
    found = {}
    for feature in schema.features(side):
        if not isinstance(feature, History | Vector):
            space = vocabulary.spaces[space_of(feature, side=side, schema=schema)]
            found[feature.name] = space.oov_row if isinstance(space, Tokens) else -1
    return found
