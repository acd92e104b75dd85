"""The SavedModel of a ranker: raw features of queries and of items in, scores of pairs out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import tensorflow as tf

from serving.version.saved_models.names import EXPLAIN, ITEM, QUERY, RECALL, SCORES, rank_input
from towers.features.encoder import Encoder
from towers.features.schema import Side
from towers.ranking.bags import Entries
from towers.ranking.pairs import Batch, Fields, pool
from towers.ranking.ranker import Ranked, Ranker


class RankGraph(tf.Module):
    """Scores n pairs of some queries and some items.

    Inputs are the features of users (and of the moment) as `user_NAME` [n_queries], those of items
    as `item_NAME` [n_items], `query` and `item` [n] int64, the places of each pair's two, and
    `recall` [n] float32, the score of the first stage; NaN where it is not known.

    - `serving_default` answers `scores` [n], the logits.
    - `explain` answers the parts that each is the sum of: `bias` [n], `first` [n, n_fields],
      `pairs` [n, n_pairs] and `deep` [n]; and `attention` [n, n_pairs or 0].
    """

    def __init__(self, ranker: Ranker, fields: Fields, encoders: Mapping[Side, Encoder]) -> None:
        """Join the encoders of both sides to a ranker."""
        super().__init__()
        # saved are the variables alone; Keras would write the model a second time, its own way
        self._variables = list(ranker.variables)
        self._rank = partial(_rank, ranker, fields)
        self._user, self._item = encoders["user"], encoders["item"]

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """All inputs by name."""
        specs = {
            rank_input(side, name): tf.TensorSpec(
                spec.shape, spec.dtype, name=rank_input(side, name)
            )
            for side, encoder in (("user", self._user), ("item", self._item))
            for name, spec in encoder.signature.items()
        }
        specs |= {name: tf.TensorSpec([None], tf.int64, name=name) for name in (QUERY, ITEM)}
        return specs | {RECALL: tf.TensorSpec([None], tf.float32, name=RECALL)}

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> Ranked:
        """Score the pairs."""
        sides = {}
        for side, encoder in (("user", self._user), ("item", self._item)):
            given = {name: inputs[rank_input(side, name)] for name in encoder.signature}
            entries = Entries.of_features(encoder.fields(given))
            sides[side] = entries, tf.shape(next(iter(given.values())), tf.int64)[0]
        batch = Batch(
            queries=sides["user"][0],
            n_queries=sides["user"][1],
            items=sides["item"][0],
            n_items=sides["item"][1],
            query_of=inputs[QUERY],
            item_of=inputs[ITEM],
            recall=inputs[RECALL],
        )
        return self._rank(batch)

    def save(self, path: Path) -> None:
        """Write the SavedModel to the folder `path`."""
        signatures = {
            name: tf.function(call, autograph=False).get_concrete_function(self.signature)
            for name, call in {"serving_default": self._scores, EXPLAIN: self._explain}.items()
        }
        tf.saved_model.save(self, str(path), signatures=signatures)

    def _scores(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {SCORES: self(inputs).logits}

    def _explain(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ranked = self(inputs)
        return {
            "bias": tf.fill(tf.shape(ranked.logits), ranked.bias),
            "first": ranked.first,
            "pairs": ranked.parts.pairs,
            "attention": ranked.parts.attention,
            "deep": ranked.parts.deep,
        }


def _rank(ranker: Ranker, fields: Fields, batch: Batch) -> Ranked:
    """Score a batch of pairs."""
    ranked: Ranked = ranker(pool(ranker, batch, fields))
    return ranked
