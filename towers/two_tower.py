"""TwoTower: a member of the family as a trainable tensorflow-recommenders model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf
import tensorflow_recommenders as tfrs

from towers.dense import Dense
from towers.layers import FeatureTable, ItemTower, UserTower
from towers.losses import margin_violations, mean_over, select_hardest
from towers.mean import Mean
from towers.negatives import Source
from towers.optimizer import Gradients

Batch = Mapping[str, tf.Tensor]
"""One step's input, as `BATCH_SPEC` describes it."""

BATCH_SPEC: dict[str, tf.TensorSpec] = {
    # the rows of the feature table that the batch touches, none twice; x's columns index them
    "rows": tf.TensorSpec([None], tf.int64),
    "user_indices": tf.TensorSpec([None, 2], tf.int64),
    "user_values": tf.TensorSpec([None], tf.float32),
    "n_queries": tf.TensorSpec([], tf.int64),
    # every item of the batch, positive or negative, once
    "item_indices": tf.TensorSpec([None, 2], tf.int64),
    "item_values": tf.TensorSpec([None], tf.float32),
    "item_popularity": tf.TensorSpec([None], tf.float32),
    # vectors' numbers, on the batch's first rows: users' own, and those that items have
    "user_dense": tf.TensorSpec([None, None], tf.float32),
    "item_dense": tf.TensorSpec([None, None], tf.float32),
    # pairs of a query and an item of the batch that belong together
    "positive_query": tf.TensorSpec([None], tf.int32),
    "positive_item": tf.TensorSpec([None], tf.int32),
    "positive_weight": tf.TensorSpec([None], tf.float32),
    # negatives that all queries share, and at least one column of each query's own; -1 for none
    "shared_item": tf.TensorSpec([None], tf.int32),
    "shared_source": tf.TensorSpec([None], tf.int8),
    "mined_item": tf.TensorSpec([None, None], tf.int32),
    # items that the query's user has turned down, -1 for none, and weights; at least one column
    "explicit_item": tf.TensorSpec([None, None], tf.int32),
    "explicit_weight": tf.TensorSpec([None, None], tf.float32),
    # (query, position in shared_item) of shared negatives that are one of the user's positives
    "known": tf.TensorSpec([None, 2], tf.int32),
}


class Exchange(Protocol):
    """What a step asks of other workers that train the same model on other batches."""

    def share(self, weight: tf.Tensor) -> tf.Tensor:
        """The part of a batch, by the weights of its positives [n], in those of all workers."""
        ...

    def add_up(self, pairs: Gradients) -> Gradients:
        """The sums of the gradients of all workers; see `LazyAdam`."""
        ...


class TwoTower(tfrs.Model):
    """Learns the feature table so that positives lie a margin above the hardest negatives."""

    def __init__(
        self,
        features: FeatureTable,
        *,
        margin: float,
        hardest: int,
        l2: float,
        explicit_share: float = 0.0,
        exchange: Exchange | None = None,
    ) -> None:
        """Keep the table, and build both towers over it.

        With an `exchange`, the loss is this worker's part of that of all.
        """
        super().__init__()
        self.features = features
        self.user_tower = UserTower(features.interaction)
        self.item_tower = ItemTower(features.interaction)
        self._margin, self._hardest, self._l2 = margin, hardest, l2
        self._explicit_share, self._exchange = explicit_share, exchange
        self._means = {
            name: Mean(name)
            for name in (
                "mean_loss",
                "violators",
                "left_out",
                "popularity_of_positives",
                "popularity_of_sampled",
                "popularity_of_hardest",
                *(() if exchange is None else ("rows_touched",)),
                *(f"sampled_{source.name.lower()}" for source in Source),
                *(f"hardest_{source.name.lower()}" for source in Source),
            )
        }

    def without_optimizer(self) -> TwoTower:
        """The same parameters in a model that is not trained, without what an optimizer keeps."""
        return TwoTower(
            self.features,
            margin=self._margin,
            hardest=self._hardest,
            l2=self._l2,
            explicit_share=self._explicit_share,
        )

    @tf.autograph.experimental.do_not_convert  # takes seconds, and no branch is on a tensor
    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Compute the loss of one batch, and update the metrics of what was sampled.

        The weighted mean over the positives of the mean hinge against the query's hardest
        negatives, plus l2 times the mean squared norm of the batch's vectors. Of a query whose user
        has turned items down, these have `explicit_share` of the hinge.
        """
        w, v = self.features(inputs["rows"])
        queries, items = self._vectors(inputs, w, v)
        negative, counts = self._hardest_negatives(inputs, queries, items)
        positive_query = inputs["positive_query"]
        positive = tf.reduce_sum(
            tf.gather(queries, positive_query) * tf.gather(items, inputs["positive_item"]), axis=1
        )
        counts = tf.gather(counts, positive_query)
        violations = margin_violations(
            positive, tf.gather(negative, positive_query), counts=counts, margin=self._margin
        )
        hinge, weight = mean_over(violations, counts), inputs["positive_weight"]
        if self._explicit_share:
            hinge = self._with_explicit(hinge, positive, inputs, queries, items)
        loss = tf.math.divide_no_nan(tf.reduce_sum(hinge * weight), tf.reduce_sum(weight))
        violators = tf.cast(violations > 0, violations.dtype)
        self._means["violators"].update_state(mean_over(violators, counts))
        repeats = self.features.interaction.repeats
        loss += self._l2 * _mean_squared_norm(queries, items, repeats=repeats)
        self._means["mean_loss"].update_state(loss, tf.reduce_sum(weight))
        if self._exchange is None:
            return loss
        self._means["rows_touched"].update_state(tf.size(inputs["rows"]))
        return loss * self._exchange.share(weight)

    def _vectors(self, inputs: Batch, w: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Run both towers; queries [batch, 1 + d] and the batch's items [n_items, 1 + d]."""
        n_rows = tf.size(w, out_type=tf.int64)
        n_items = tf.size(inputs["item_popularity"], out_type=tf.int64)
        users = tf.SparseTensor(
            inputs["user_indices"], inputs["user_values"], tf.stack([inputs["n_queries"], n_rows])
        )
        items = tf.SparseTensor(
            inputs["item_indices"], inputs["item_values"], tf.stack([n_items, n_rows])
        )
        width = tf.shape(inputs["user_dense"])[1] - tf.shape(inputs["item_dense"])[1]
        rows = inputs["rows"]
        query = self.user_tower(users, v, dense=Dense(inputs["user_dense"], 0), rows=rows)
        dense = Dense(inputs["item_dense"], width)
        return query, self.item_tower(items, w, v, dense=dense, rows=rows)

    def _hardest_negatives(
        self, inputs: Batch, queries: tf.Tensor, items: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Score each query's hardest negatives, and say which of them count; [batch, m] each."""
        shared, mined = inputs["shared_item"], inputs["mined_item"]
        scores = tf.matmul(queries, tf.gather(items, shared), transpose_b=True)
        never = tf.fill(tf.shape(inputs["known"])[:1], -math.inf)
        scores = tf.tensor_scatter_nd_update(scores, inputs["known"], never)
        own = tf.einsum("bd,bmd->bm", queries, tf.gather(items, tf.maximum(mined, 0)))
        scores = tf.concat([scores, tf.where(mined >= 0, own, -math.inf)], axis=1)
        columns, counts = select_hardest(scores, m=self._hardest)
        self._report(inputs, columns, counts)
        hardest = tf.gather(scores, columns, batch_dims=1)
        return tf.where(counts, hardest, tf.zeros_like(hardest)), counts

    def _with_explicit(
        self,
        hinge: tf.Tensor,
        positive: tf.Tensor,
        inputs: Batch,
        queries: tf.Tensor,
        items: tf.Tensor,
    ) -> tf.Tensor:
        """Give the query's explicit negatives their share of the hinge of each positive."""
        explicit, query = inputs["explicit_item"], inputs["positive_query"]
        own = tf.gather(items, tf.maximum(explicit, 0))
        scores = tf.gather(tf.einsum("bd,bmd->bm", queries, own), query)
        counts = tf.gather(explicit >= 0, query)
        weights = tf.where(counts, tf.gather(inputs["explicit_weight"], query), 0.0)
        violations = margin_violations(positive, scores, counts=counts, margin=self._margin)
        total = tf.reduce_sum(weights, axis=1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(violations * weights, axis=1), total)
        share = tf.where(total > 0.0, self._explicit_share, 0.0)
        return hinge + share * (mean - hinge)

    def _report(self, inputs: Batch, columns: tf.Tensor, counts: tf.Tensor) -> None:
        """Update the means of what was sampled, and of what the loss saw of it."""
        popularity, mined = inputs["item_popularity"], inputs["mined_item"]
        positives = tf.gather(popularity, inputs["positive_item"])
        self._means["popularity_of_positives"].update_state(positives)
        # the shared negatives, each drawn for every query, and then every query's own
        own = tf.reshape(mined, [-1])
        n_shared, n_queries = tf.size(inputs["shared_item"]), tf.shape(mined)[0]
        items = tf.concat([inputs["shared_item"], own], axis=0)
        source = tf.cast(inputs["shared_source"], tf.int32)
        source = tf.concat([source, tf.fill(tf.shape(own), int(Source.MINED))], axis=0)
        weight = tf.concat([tf.fill([n_shared], n_queries), tf.cast(own >= 0, tf.int32)], axis=0)
        self._report_share("sampled", popularity, items, source, tf.cast(weight, tf.float32))
        pairs = tf.cast(n_shared * n_queries, tf.float32)
        self._means["left_out"].update_state(
            tf.cast(tf.shape(inputs["known"])[0], tf.float32) / pairs
        )
        first_own = tf.range(n_queries)[:, tf.newaxis] * tf.shape(mined)[1]
        at = tf.where(columns < n_shared, columns, columns + first_own)
        items, source = tf.gather(items, at), tf.gather(source, at)
        self._report_share("hardest", popularity, items, source, tf.cast(counts, tf.float32))

    def _report_share(
        self,
        what: str,
        popularity: tf.Tensor,
        items: tf.Tensor,
        source: tf.Tensor,
        weight: tf.Tensor,
    ) -> None:
        """Update the mean popularity of some negatives, and the share of each source."""
        chosen = tf.gather(popularity, tf.maximum(items, 0))
        self._means[f"popularity_of_{what}"].update_state(chosen, weight)
        for kind in Source:
            of_kind = tf.cast(source == int(kind), tf.float32)
            self._means[f"{what}_{kind.name.lower()}"].update_state(of_kind, weight)


def _mean_squared_norm(
    queries: tf.Tensor, items: tf.Tensor, *, repeats: tuple[int, int]
) -> tf.Tensor:
    """Average the squared lengths of the batch's query vectors, and of its item vectors.

    Coupled parts count as if what `repeats` of them repeat were there once.
    """
    users = tf.reduce_mean(tf.reduce_sum(tf.square(queries[:, 1:]), axis=1))
    if repeats == (1, 1):
        return users + tf.reduce_mean(tf.reduce_sum(tf.square(items), axis=1))
    of_items = tf.reduce_mean(tf.reduce_sum(tf.square(items[:, 1:]), axis=1))
    return users / repeats[0] + of_items / repeats[1] + tf.reduce_mean(tf.square(items[:, 0]))
