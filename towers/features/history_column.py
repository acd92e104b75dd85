"""HistoryColumn: the past items of a query, as entries of its bag or summed up at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from towers.dense import Dense
from towers.features.kinds import History
from towers.features.past_items import PastItems

Tensors = Mapping[str, tf.Tensor]

Entries = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Query positions int64, feature rows int64 and values float32, each [n]."""

Embed = Callable[[tf.SparseTensor, Dense | None], tf.Tensor]
"""Answers bags [n, n_rows], and the numbers of their vectors, with what they add to the vector of a
query [n, d], where that is a sum."""

STRETCH = 65_536
"""How many items are embedded at once."""

MOST_ITEMS = 2**40
"""More than twice the items that there are, so that query * MOST_ITEMS + item names a pair."""


def true_places(mask: tf.Tensor) -> tf.Tensor:
    """Where a mask [n] is true, ascending int64; by a shape, which costs less than a slice."""
    return tf.reshape(tf.where(mask), [-1])


class LatestItems(NamedTuple):
    """The items of a batch of histories that count, of one query after another, from old to new."""

    query: tf.Tensor
    """[n] int64."""
    item: tf.Tensor
    """[n] int64: twice the position of a published item, twice that of a fresh one and 1."""
    weight: tf.Tensor | None
    """[n] float32; None: each is 1."""
    norm: tf.Tensor
    """[batch] float32, by which a query's weights are multiplied: then their squares sum to 1."""
    counts: tf.Tensor
    """[batch] int64, how many different known items each query has, of which the latest count."""


class PastBags(tf.Module):
    """What some items bring to histories, by their ids; more can be put in where it `grows`."""

    def __init__(self, past: PastItems, *, integer: bool, grows: bool = False) -> None:
        super().__init__()
        self._grows = grows
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.int64 if integer else tf.string, tf.int64, -1
        )
        starts, rows = (part.astype(np.int64) for part in (past.bags.indptr, past.bags.indices))
        self._starts = tf.Variable(starts, trainable=False, name="past_starts", shape=[None])
        self._rows = tf.Variable(rows, trainable=False, name="past_rows", shape=[None])
        self._x = tf.Variable(past.bags.data, trainable=False, name="past_x", shape=[None])
        self._n_items = tf.Variable(len(past.ids), trainable=False, dtype=tf.int64)
        self._n_entries = tf.Variable(len(rows), trainable=False, dtype=tf.int64)
        self.width = past.dense.x.shape[1]
        if self.width:
            shape = [None, self.width]
            self._dense = tf.Variable(past.dense.x, False, name="past_dense", shape=shape)
        self._first, self._n_rows = past.dense.first, past.bags.shape[1]
        self._embed: Embed | None = None  # None until `pool`
        brings = np.flatnonzero(past.brings)  # others are as good as unknown
        ids = past.ids[brings].tolist()
        if ids:
            keys = tf.constant(ids if integer else [str(one) for one in ids])
            self._table.insert(tf.cast(keys, self._table.key_dtype), tf.constant(brings))

    @property
    def signature(self) -> list[tf.TensorSpec]:
        """What `replace` and `add` take."""
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
        if self._embed is not None:
            every = tf.constant(0, tf.int64), tf.size(ids, tf.int64)
            self._pooled.assign(self._embedded(self._embed, *every))
        self._table.insert(ids, tf.range(tf.size(ids, tf.int64), dtype=tf.int64))
        self._n_items.assign(tf.size(ids, tf.int64))
        self._n_entries.assign(tf.size(rows, tf.int64))

    def add(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        rows: tf.Tensor,
        x: tf.Tensor,
        dense: tf.Tensor | None = None,
    ) -> None:
        """Hold these items too, in place of those of the same ids; as `replace`.

        What is held has room to grow, so that this costs what is added, and now and then a copy.
        """
        first, n_entries = tf.identity(self._n_items), tf.identity(self._n_entries)
        last = first + tf.size(ids, tf.int64)
        _write(self._starts, n_entries + starts, first)
        _write(self._rows, rows, n_entries)
        _write(self._x, x, n_entries)
        if dense is not None:
            _write(self._dense, dense, first)
        if self._embed is not None:
            _write(self._pooled, self._embedded(self._embed, first, last), first)
        self._table.insert(ids, tf.range(first, last, dtype=tf.int64))
        self._n_items.assign(last)
        self._n_entries.assign(n_entries + tf.size(rows, tf.int64))

    def pool(self, embed: Embed) -> None:
        """Embed what each item brings, once for all queries; `pooled` then answers with it."""
        self._embed = embed
        n = int(self._starts.shape[0] or tf.size(self._starts)) - 1
        stretches = [(start, min(start + STRETCH, n)) for start in range(0, max(n, 1), STRETCH)]
        parts = [self._embedded(embed, *tf.constant(one, tf.int64)) for one in stretches]
        vectors = tf.concat(parts, axis=0)
        shape = [None, vectors.shape[1]]
        self._pooled = tf.Variable(vectors, trainable=False, name="past_vectors", shape=shape)

    def pooled(
        self,
        query: tf.Tensor,
        positions: tf.Tensor,
        weight: tf.Tensor | None,
        *,
        batch: tf.Tensor,
    ) -> tf.Tensor:
        """Sum what the items at `positions` [n] add to the vectors of queries; [batch, d].

        `query` [n] ascends; `weight` [n] is 1 by default.
        """
        if weight is None and not self._grows:
            return tf.sparse.segment_sum(self._pooled, positions, query, num_segments=batch)
        # Gathered from the variable itself: once it is written to in places, reading all of it
        # makes a copy.
        vectors = tf.gather(self._pooled, positions)
        if weight is not None:
            vectors *= weight[:, tf.newaxis]
        return tf.math.unsorted_segment_sum(vectors, query, batch)

    def _embedded(self, embed: Embed, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Embed the items held from `first` to before `last`."""
        place, rows, x = self.entries(tf.range(first, last))
        shape = tf.stack([last - first, tf.constant(self._n_rows, tf.int64)])
        bags = tf.SparseTensor(tf.stack([place, rows], axis=1), x, shape)
        dense = None
        if self.width:
            dense = Dense(tf.gather(self._dense, tf.range(first, last)), self._first)
        return embed(bags, dense)

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Where the items are, -1 for unknown ones; int64 of the same shape."""
        return self._table.lookup(ids)

    def entries(self, positions: tf.Tensor) -> Entries:
        """List what the items at `positions` [n] bring: place in `positions`, row and value."""
        first = tf.gather(self._starts, tf.maximum(positions, 0))
        last = tf.gather(self._starts, tf.maximum(positions + 1, 0))
        spans = tf.ragged.range(first, tf.where(positions < 0, first, last))
        entry = spans.flat_values
        return spans.value_rowids(), tf.gather(self._rows, entry), tf.gather(self._x, entry)

    def dense(self, positions: tf.Tensor) -> tf.Tensor:
        """What the items at `positions` [n] bring of vectors, [n, m]; 0 for unknown ones."""
        known = tf.where(positions >= 0)
        x = tf.gather(self._dense, tf.gather_nd(positions, known))
        shape = tf.stack([tf.size(positions, tf.int64), self.width])
        return tf.scatter_nd(known, x, shape)


def _write(held: tf.Variable, values: tf.Tensor, start: tf.Tensor) -> None:
    """Write values [n, ...] from `start` on, with room for as many again where there is none."""
    end = start + tf.shape(values, tf.int64)[0]
    # Not by reading it: what somebody has read is copied before it is written to.
    room = tf.raw_ops.VariableShape(input=held.handle, out_type=tf.int64)[0]

    def grow() -> tf.Tensor:
        shape = tf.concat([[2 * end - start], tf.shape(values, tf.int64)[1:]], axis=0)
        held.assign(tf.concat([held[:start], tf.zeros(shape, held.dtype)], axis=0))
        return end

    tf.cond(end > room, grow, lambda: room)
    # `held[start:end].assign(values)` would read `held` first, and so copy all of it each time.
    tf.raw_ops.ResourceStridedSliceAssign(
        ref=held.handle, begin=[start], end=[end], strides=[tf.ones_like(start)], value=values
    )


class HistoryColumn(tf.Module):
    """Past items: the sum of what the latest n of them bring, times 1/sqrt(n), or decaying."""

    def __init__(self, feature: History, past: PastItems, *, integer: bool) -> None:
        super().__init__()
        self._column, self._latest = feature.name, feature.latest
        self._half_life = feature.half_life
        self.published = PastBags(past, integer=integer)
        self.fresh = PastBags(past.take(slice(0, 0)), integer=integer, grows=True)

    def __call__(self, features: Tensors) -> Entries:
        """List what past items bring to queries, [batch, length] ids by the feature's name."""
        latest = self._latest_items(features[self._column])
        entries = [bags.entries(positions) for bags, positions in self._in_bags(latest.item)]
        place, rows, x = (tf.concat(parts, axis=0) for parts in zip(*entries, strict=True))
        return tf.gather(latest.query, place), rows, x * tf.gather(_scale(latest), place)

    def dense(self, features: Tensors) -> tf.Tensor:
        """Sum what they bring of vectors, [batch, m]."""
        ids = features[self._column]
        latest = self._latest_items(ids)
        x = tf.add_n([bags.dense(positions) for bags, positions in self._in_bags(latest.item)])
        scaled = x * _scale(latest)[:, tf.newaxis]
        return tf.math.unsorted_segment_sum(scaled, latest.query, tf.shape(ids)[0])

    def has_items(self, features: Tensors) -> tf.Tensor:
        """Whether any item counts, [batch] bool."""
        return self._latest_items(features[self._column]).counts > 0

    def pool(self, embed: Embed) -> None:
        """Embed what items bring, those held now and those that are put in, for `pooled`."""
        self.published.pool(embed)
        self.fresh.pool(embed)

    def pooled(self, features: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Sum what past items add to the vectors of queries, [batch, d], after `pool`.

        With `has_items`.
        """
        ids = features[self._column]
        latest = self._latest_items(ids)
        batch = tf.shape(ids, tf.int64)[0]
        sums = []
        for number, bags in enumerate((self.published, self.fresh)):
            its = true_places(latest.item % 2 == number)
            query, item = tf.gather(latest.query, its), tf.gather(latest.item, its)
            weight = None if latest.weight is None else tf.gather(latest.weight, its)
            sums.append(bags.pooled(query, item // 2, weight, batch=batch))
        return tf.add_n(sums) * latest.norm[:, tf.newaxis], latest.counts > 0

    def _latest_items(self, ids: tf.Tensor) -> LatestItems:
        """Choose of each query's ids [batch, length] the latest that are known.

        An item that comes several times counts once, at its last place, as in training.
        """
        batch = tf.shape(ids, tf.int64)[0]
        published, fresh = self.published.positions(ids), self.fresh.positions(ids)
        item = tf.where(published < 0, 2 * fresh + 1, 2 * published)  # -1 for an unknown one
        known = tf.where(item >= 0)
        keys = known[:, 0] * MOST_ITEMS + tf.gather_nd(item, known)
        # of equal ones, the first is kept: from the end, that is the last
        keys = tf.reverse(tf.unique(tf.reverse(keys, [0]))[0], [0])
        query = keys // MOST_ITEMS
        counts = tf.math.unsorted_segment_sum(tf.ones_like(query), query, batch)
        later = tf.gather(tf.cumsum(counts), query) - 1 - tf.range(tf.size(query, tf.int64))
        kept = true_places(later < self._latest)
        query, item = tf.gather(query, kept), tf.gather(keys, kept) % MOST_ITEMS
        weight, total = None, tf.cast(tf.minimum(counts, self._latest), tf.float32)
        if self._half_life is not None:
            weight = tf.pow(2.0, tf.cast(-tf.gather(later, kept), tf.float32) / self._half_life)
            total = tf.math.unsorted_segment_sum(tf.square(weight), query, batch)
        # of an item that counts, the latest weighs 1; where there is none, nothing is scaled
        norm = tf.math.rsqrt(tf.maximum(total, 1.0))
        return LatestItems(query, item, weight, norm, counts)

    def _in_bags(self, item: tf.Tensor) -> list[tuple[PastBags, tf.Tensor]]:
        """The positions of items in either bags, -1 where they are in the other."""
        return [
            (bags, tf.where(item % 2 == number, item // 2, -1))
            for number, bags in enumerate((self.published, self.fresh))
        ]


def _scale(latest: LatestItems) -> tf.Tensor:
    """By what each item is multiplied, [n] float32."""
    norm = tf.gather(latest.norm, latest.query)
    return norm if latest.weight is None else norm * latest.weight
