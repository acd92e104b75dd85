"""TwoTower: a member of the family as a trainable tensorflow-recommenders model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf
import tensorflow_recommenders as tfrs

from towers import fm
from towers.dense import Dense
from towers.interactions.interaction import FM
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
    # the first items of the batch are the negatives that all queries share; where they are from
    "shared_source": tf.TensorSpec([None], tf.int8),
    # at least one column of each query's own negatives; -1 for none
    "mined_item": tf.TensorSpec([None, None], tf.int32),
    # items that the query's user has turned down, -1 for none, and weights; at least one column
    "explicit_item": tf.TensorSpec([None, None], tf.int32),
    "explicit_weight": tf.TensorSpec([None, None], tf.float32),
    # (query, item) of shared negatives that are one of the user's positives
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
        sides = self._sides(inputs, w, v)
        # all scores of the batch in one product, of which what is needed is read
        scores = tf.matmul(sides.queries, sides.items, transpose_b=True) + sides.first
        hardest, counts = self._hardest_negatives(inputs, scores)
        query, explicit = inputs["positive_query"], inputs["explicit_item"]
        positive, negative, turned_down = _entries(
            scores, (query, inputs["positive_item"]), hardest, tf.maximum(explicit, 0)
        )
        counts = tf.gather(counts, query)
        violations = margin_violations(
            positive, tf.gather(negative, query), counts=counts, margin=self._margin
        )
        hinge, weight = mean_over(violations, counts), inputs["positive_weight"]
        if self._explicit_share:
            hinge = self._with_explicit(hinge, positive, inputs, turned_down)
        loss = tf.math.divide_no_nan(tf.reduce_sum(hinge * weight), tf.reduce_sum(weight))
        violators = tf.cast(violations > 0, violations.dtype)
        self._means["violators"].update_state(mean_over(violators, counts))
        loss += self._l2 * _mean_squared_norm(sides, repeats=self.features.interaction.repeats)
        self._means["mean_loss"].update_state(loss, tf.reduce_sum(weight))
        if self._exchange is None:
            return loss
        self._means["rows_touched"].update_state(tf.size(inputs["rows"]))
        return loss * self._exchange.share(weight)

    def _sides(self, inputs: Batch, w: tf.Tensor, v: tf.Tensor) -> fm.Sides:
        """Run both towers over the batch's queries and items."""
        n_rows = tf.size(w, out_type=tf.int64)
        n_items = tf.size(inputs["item_popularity"], out_type=tf.int64)
        users = tf.SparseTensor(
            inputs["user_indices"], inputs["user_values"], tf.stack([inputs["n_queries"], n_rows])
        )
        items = tf.SparseTensor(
            inputs["item_indices"], inputs["item_values"], tf.stack([n_items, n_rows])
        )
        width = tf.shape(inputs["user_dense"])[1] - tf.shape(inputs["item_dense"])[1]
        dense = Dense(inputs["user_dense"], 0), Dense(inputs["item_dense"], width)
        if isinstance(self.features.interaction, FM):
            return fm.both_sides(users, items, w, v, dense=dense)
        rows = inputs["rows"]
        queries = self.user_tower(users, v, dense=dense[0], rows=rows)[:, 1:]
        vectors = self.item_tower(items, w, v, dense=dense[1], rows=rows)
        lengths = (fm.squared_lengths(one) for one in (queries, vectors[:, 1:]))
        return fm.Sides(queries, vectors[:, 1:], vectors[:, 0], *lengths)

    def _hardest_negatives(self, inputs: Batch, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Find each query's hardest negatives, and say which of them count; [batch, m] each."""
        mined, n_shared = inputs["mined_item"], tf.size(inputs["shared_source"])
        scores = tf.stop_gradient(scores)
        own = tf.gather(scores, tf.maximum(mined, 0), batch_dims=1)
        never = tf.fill(tf.shape(inputs["known"])[:1], -math.inf)
        shared = tf.tensor_scatter_nd_update(scores[:, :n_shared], inputs["known"], never)
        scores = tf.concat([shared, tf.where(mined >= 0, own, -math.inf)], axis=1)
        columns, counts = select_hardest(scores, m=self._hardest)
        of_own = tf.gather(mined, tf.maximum(columns - n_shared, 0), batch_dims=1)
        items = tf.where(columns < n_shared, columns, tf.maximum(of_own, 0))
        self._report(inputs, items, is_own=columns >= n_shared, counts=counts)
        return items, counts

    def _with_explicit(
        self, hinge: tf.Tensor, positive: tf.Tensor, inputs: Batch, scores: tf.Tensor
    ) -> tf.Tensor:
        """Give the query's explicit negatives their share of the hinge of each positive."""
        explicit, query = inputs["explicit_item"], inputs["positive_query"]
        counts = tf.gather(explicit >= 0, query)
        weights = tf.where(counts, tf.gather(inputs["explicit_weight"], query), 0.0)
        violations = margin_violations(
            positive, tf.gather(scores, query), counts=counts, margin=self._margin
        )
        total = tf.reduce_sum(weights, axis=1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(violations * weights, axis=1), total)
        share = tf.where(total > 0.0, self._explicit_share, 0.0)
        return hinge + share * (mean - hinge)

    def _report(
        self, inputs: Batch, hardest: tf.Tensor, *, is_own: tf.Tensor, counts: tf.Tensor
    ) -> None:
        """Update the means of what was sampled, and of what the loss saw of it."""
        popularity, mined = inputs["item_popularity"], inputs["mined_item"]
        positives = tf.gather(popularity, inputs["positive_item"])
        self._means["popularity_of_positives"].update_state(positives)
        # the shared negatives, each drawn for every query, and then every query's own
        own, sources = tf.reshape(mined, [-1]), tf.cast(inputs["shared_source"], tf.int32)
        n_shared, n_queries = tf.size(sources), tf.shape(mined)[0]
        items = tf.concat([tf.range(n_shared), tf.maximum(own, 0)], axis=0)
        source = tf.concat([sources, tf.fill(tf.shape(own), int(Source.MINED))], axis=0)
        weight = tf.concat([tf.fill([n_shared], n_queries), tf.cast(own >= 0, tf.int32)], axis=0)
        self._report_share("sampled", popularity, items, source, tf.cast(weight, tf.float32))
        pairs = tf.cast(n_shared * n_queries, tf.float32)
        self._means["left_out"].update_state(
            tf.cast(tf.shape(inputs["known"])[0], tf.float32) / pairs
        )
        shared = tf.gather(sources, tf.where(is_own, 0, hardest))
        source = tf.where(is_own, int(Source.MINED), shared)
        self._report_share("hardest", popularity, hardest, source, tf.cast(counts, tf.float32))

    def _report_share(
        self,
        what: str,
        popularity: tf.Tensor,
        items: tf.Tensor,
        source: tf.Tensor,
        weight: tf.Tensor,
    ) -> None:
        """Update the mean popularity of some negatives, and the share of each source."""
        self._means[f"popularity_of_{what}"].update_state(tf.gather(popularity, items), weight)
        for kind in Source:
            of_kind = tf.cast(source == int(kind), tf.float32)
            self._means[f"{what}_{kind.name.lower()}"].update_state(of_kind, weight)


def _entries(
    scores: tf.Tensor, pairs: tuple[tf.Tensor, tf.Tensor], *items: tf.Tensor
) -> list[tf.Tensor]:
    """Read scores of some (query, item), and of each query's own items [batch, m], in one go."""
    n_queries = tf.shape(scores)[0]
    wanted = [tf.stack(pairs, axis=1)]
    for some in items:
        query = tf.broadcast_to(tf.range(n_queries)[:, tf.newaxis], tf.shape(some))
        wanted.append(tf.reshape(tf.stack([query, some], axis=2), [-1, 2]))
    found = tf.split(
        tf.gather_nd(scores, tf.concat(wanted, axis=0)), [tf.shape(one)[0] for one in wanted]
    )
    return [found[0], *(tf.reshape(x, tf.shape(y)) for x, y in zip(found[1:], items, strict=True))]


def _mean_squared_norm(sides: fm.Sides, *, repeats: tuple[int, int]) -> tf.Tensor:
    """Average the squared lengths of the batch's query vectors, and of its item vectors.

    Coupled parts count as if what `repeats` of them repeat were there once.
    """
    users, items = (tf.reduce_mean(one) for one in (sides.query_lengths, sides.item_lengths))
    return users / repeats[0] + items / repeats[1] + tf.reduce_mean(tf.square(sides.first))
