"""PastItems: what each item brings to the history of a user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from towers.dense import Dense
from towers.features.kinds import History, Trend
from towers.features.schema import Schema, space_of
from towers.features.vocabulary import Tokens, Vocabulary, history_weights, rows_of


@dataclass(frozen=True, kw_only=True, eq=False)
class PastItems:
    """The features that items bring to a history, with their values.

    A user's history is the sum of these bags over its latest n items, times 1/sqrt(n). So what is
    learned of an item's features counts for the users who chose it, and an item that training has
    never seen counts in a history by its features.
    """

    ids: NDArray[Any]
    """[n] int64 or str objects."""
    bags: sparse.csr_array
    """[n, n_rows] float32: c pop^-b times the features of each item; empty for an item of which
    nothing is known, which does not count in a history."""
    dense: Dense = field(default_factory=lambda: Dense(np.empty((0, 0), np.float32), 0))
    """The same of the numbers of vectors, [n, m] float32; by default there are no vectors."""

    def __post_init__(self) -> None:
        if not self.dense.x.size:
            x = np.zeros((len(self.ids), self.dense.x.shape[1]), dtype=np.float32)
            object.__setattr__(self, "dense", self.dense._replace(x=x))

    @property
    def brings(self) -> NDArray[np.bool_]:
        """Which items bring anything, [n]."""
        found: NDArray[np.bool_] = (np.diff(self.bags.indptr) > 0) | self.dense.x.any(axis=1)
        return found

    def take(self, items: slice | NDArray[np.int64]) -> PastItems:
        """Some of them."""
        return PastItems(
            ids=self.ids[items],
            bags=sparse.csr_array(self.bags[items]),
            dense=self.dense.take(items),
        )

    def without(self, items: NDArray[np.int64]) -> PastItems:
        """The same where some of them [m] bring nothing."""
        kept = np.ones(len(self.ids), dtype=np.float32)
        kept[items] = 0.0
        bags = sparse.csr_array(sparse.diags_array(kept) @ self.bags)
        bags.eliminate_zeros()
        dense = self.dense._replace(x=self.dense.x * kept[:, np.newaxis])
        return PastItems(ids=self.ids, bags=bags, dense=dense)

    def add(self, others: PastItems) -> PastItems:
        """These and others, which count in place of those of the same ids."""
        is_kept = ~pd.Index(self.ids).isin(others.ids)
        bags = sparse.vstack([self.bags[np.flatnonzero(is_kept)], others.bags], format="csr")
        dense = np.concatenate([self.dense.x[is_kept], others.dense.x])
        return PastItems(
            ids=np.concatenate([self.ids[is_kept], others.ids]),
            bags=bags,
            dense=Dense(dense, others.dense.first),
        )

    @classmethod
    def build(
        cls,
        schema: Schema,
        vocabulary: Vocabulary,
        *,
        history: History,
        ids: NDArray[Any],
        item_bags: sparse.csr_array,
        dense: Dense | None = None,
    ) -> PastItems:
        """Take from the bags of items [n, n_rows] what a history is to know of them.

        `dense` are the numbers of their vectors, [n, m]; none where they are not known.
        """
        known_items = _known_items(history, schema, vocabulary)
        weights = known_items.weights
        position = known_items.ids.get_indexer(pd.Index(ids))  # -1 counts as seen once
        if history.vectors == "own":
            own = vocabulary.tokens(space_of(history, side="user", schema=schema))
            known = position >= 0
            starts = np.concatenate([[0], np.cumsum(known)])
            rows = own.rows[position[known]]
            own_bags = sparse.csr_array(
                (weights[position[known]], rows, starts), shape=item_bags.shape
            )
            return cls(ids=ids, bags=own_bags)
        brought = known_items.is_brought
        kept = brought[item_bags.indices]
        starts = np.concatenate([[0], np.cumsum(kept)])[item_bags.indptr]
        items = np.repeat(position, np.diff(item_bags.indptr))[kept]
        parts = (item_bags.data[kept] * weights[items], item_bags.indices[kept], starts)
        if dense is None:
            vectors = vocabulary.dense_rows("item")
            dense = Dense(np.zeros((len(ids), len(vectors)), dtype=np.float32), vectors.start)
        return cls(
            ids=ids,
            bags=sparse.csr_array(parts, shape=item_bags.shape),
            dense=Dense(dense.x * weights[position, np.newaxis] * brought[dense.rows], dense.first),
        )

    @classmethod
    def of_vocabulary(
        cls, schema: Schema, vocabulary: Vocabulary, *, history: History
    ) -> PastItems:
        """Take the known items with nothing but their ids."""
        space = _id_space(schema, vocabulary)
        n = len(space.tokens)
        ones = np.ones(n, dtype=np.float32)
        shape = (n, vocabulary.n_rows)
        bags = sparse.csr_array((ones, space.rows, np.arange(n + 1)), shape=shape)
        return cls.build(schema, vocabulary, history=history, ids=space.tokens, item_bags=bags)


@dataclass(frozen=True, eq=False)
class _KnownItems:
    """What a history knows of the items that training knows; the same for all who ask."""

    ids: pd.Index[Any]
    weights: NDArray[np.float32]
    """[n + 1] c pop^-b; the last is that of all others."""
    is_brought: NDArray[np.bool_]
    """[n_rows] which rows of the feature table items bring."""


_KNOWN: WeakKeyDictionary[Vocabulary, dict[tuple[Schema, History], _KnownItems]] = (
    WeakKeyDictionary()
)


def _known_items(history: History, schema: Schema, vocabulary: Vocabulary) -> _KnownItems:
    """Look up what is known; it takes as long as there are items, and is done once."""
    known = _KNOWN.setdefault(vocabulary, {})
    if (schema, history) not in known:
        space = _id_space(schema, vocabulary)
        weights = history_weights(np.append(space.counts, 0), power=history.power)
        weights *= np.float32(history.scale or 1.0)
        brought = brought_rows(history, schema, vocabulary)
        known[schema, history] = _KnownItems(pd.Index(space.tokens), weights, brought)
    return known[schema, history]


def _id_space(schema: Schema, vocabulary: Vocabulary) -> Tokens:
    """The ids of items that training knows."""
    feature = schema.item_id_feature
    if feature is None:
        raise ValueError("schema: expected the ids of items among their features, found none")
    return vocabulary.tokens(space_of(feature, side="item", schema=schema))


def brought_rows(history: History, schema: Schema, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Which rows of the feature table items bring to a history, [n_rows].

    None for unknown ids, and none for a trend, which has no vector.
    """
    flags = np.zeros(vocabulary.n_rows, dtype=np.bool_)
    flags[_id_space(schema, vocabulary).rows] = True
    for feature in schema.item.features:
        asked = history.item_features is None or feature.name in history.item_features
        if asked and feature != schema.item_id_feature and not isinstance(feature, Trend):
            name = space_of(feature, side="item", schema=schema)
            flags[rows_of(vocabulary.spaces[name])] = True
    return flags
