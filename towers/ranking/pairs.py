"""Pairs of a query and an item: their own features beside those of the two."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from towers.ranking.bags import Entries
from towers.ranking.ranker import Pooled, Ranker, join_fields

RECALL = "recall"
"""The field of the score by which the first stage has found an item."""


@dataclass(frozen=True, kw_only=True)
class PairCross:
    """A feature of the query and one of the item, of which each combination has a row by a hash."""

    name: str
    query_field: int
    item_field: int
    first_row: int
    buckets: int


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of examples: of the query (user and moment), of the item, and of the two."""

    query: tuple[str, ...]
    item: tuple[str, ...]
    crosses: tuple[PairCross, ...] = ()
    recall_row: int | None = None
    """The row of the recall score; None where it is no feature."""
    recall_mean: float = 0.0
    recall_std: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """All, in their order. A name that queries and items both have is told apart."""
        pair = [cross.name for cross in self.crosses]
        pair += [] if self.recall_row is None else [RECALL]
        query = [f"user.{name}" if name in self.item else name for name in self.query]
        item = [f"item.{name}" if name in self.query else name for name in self.item]
        return (*query, *item, *pair)

    @property
    def n_pair(self) -> int:
        """How many are of the two."""
        return len(self.crosses) + (self.recall_row is not None)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples: n pairs of some queries and some items."""

    queries: Entries
    n_queries: tf.Tensor
    items: Entries
    n_items: tf.Tensor
    query_of: tf.Tensor
    """The place of each example's query, [n] int64."""
    item_of: tf.Tensor
    """The place of each example's item, [n] int64."""
    recall: tf.Tensor
    """The recall score of each, [n] float32; NaN where there is none."""


def pool(ranker: Ranker, batch: Batch, fields: Fields) -> Pooled:
    """Pool the fields of n examples; each query and each item is pooled once."""
    queries = ranker.pool(batch.queries, n=batch.n_queries, n_fields=len(fields.query))
    items = ranker.pool(batch.items, n=batch.n_items, n_fields=len(fields.item))
    parts = [queries.take(batch.query_of), items.take(batch.item_of)]
    if fields.n_pair:
        n = tf.size(batch.query_of, tf.int64)
        parts.append(ranker.pool(pair_entries(batch, fields), n=n, n_fields=fields.n_pair))
    return join_fields(parts)


def pair_entries(batch: Batch, fields: Fields) -> Entries:
    """The active features of the pairs; `fields` has fields of pairs."""
    found = [_crossed(batch, cross) for cross in fields.crosses]
    if fields.recall_row is not None:
        pair = tf.where(tf.math.is_finite(batch.recall))[:, 0]
        x = (tf.gather(batch.recall, pair) - fields.recall_mean) / fields.recall_std
        rows = tf.fill(tf.shape(pair), tf.constant(fields.recall_row, tf.int64))
        found.append((pair, rows, tf.clip_by_value(x, -3.0, 3.0)))
    return Entries.of_features(found)


def _crossed(batch: Batch, cross: PairCross) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Every combination of the two features of each pair; x = 1 / sqrt(their number)."""
    query = tf.gather(_of_field(batch.queries, batch.n_queries, cross.query_field), batch.query_of)
    item = tf.gather(_of_field(batch.items, batch.n_items, cross.item_field), batch.item_of)
    rows = tf.ragged.cross_hashed([query, item], num_buckets=cross.buckets)
    sizes = tf.cast(rows.row_lengths(), tf.float32)
    pair = rows.value_rowids()
    return pair, cross.first_row + rows.flat_values, tf.math.rsqrt(tf.gather(sizes, pair))


def _of_field(entries: Entries, n: tf.Tensor, field: int) -> tf.RaggedTensor:
    """The rows of one field of n owners."""
    kept = tf.where(entries.fields == field)[:, 0]
    owners, rows = tf.gather(entries.owners, kept), tf.gather(entries.rows, kept)
    order = tf.argsort(owners, stable=True)
    return tf.RaggedTensor.from_value_rowids(
        tf.gather(rows, order), tf.gather(owners, order), nrows=tf.cast(n, tf.int64)
    )
