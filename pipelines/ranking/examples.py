"""Examples: who was shown what and chose it or not, with the features of all that occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from towers.ranking.bags import Entries, FieldBags, HeldBags
from towers.ranking.pairs import Batch, Fields

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """n examples by the rows of `Tables`, each [n]."""

    users: Rows
    items: Rows
    moments: Rows
    """0 where there is no context."""
    labels: NDArray[np.float32]
    """1 for what was chosen, else 0."""
    recall: NDArray[np.float32]
    """The score by which recall found the item; NaN where that is not known."""
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: Any) -> Examples:
        """Some of them."""
        return Examples(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """The features of users, moments and items."""

    fields: Fields
    n_rows: int
    """Of the feature table, with the rows of crosses and of recall."""
    users: FieldBags
    moments: FieldBags
    """Of the same fields as the users; at least one."""
    items: FieldBags


class Reader(tf.Module):
    """Makes batches of examples in a graph."""

    def __init__(self, tables: Tables) -> None:
        """Hold the tables."""
        super().__init__()
        self.fields = tables.fields
        self._users, self._moments = HeldBags(tables.users), HeldBags(tables.moments)
        self._items, self._n_moments = HeldBags(tables.items), tables.moments.n

    def batch(
        self, users: tf.Tensor, items: tf.Tensor, moments: tf.Tensor, recall: tf.Tensor
    ) -> Batch:
        """Take n examples; each user at a moment, and each item, comes once."""
        queries, query_of = tf.unique(users * self._n_moments + moments, tf.int64)
        known = self._users.take(queries // self._n_moments)
        now = self._moments.take(queries % self._n_moments)
        items, item_of = tf.unique(items, tf.int64)
        return Batch(
            queries=Entries(*(tf.concat(both, axis=0) for both in zip(known, now, strict=True))),
            n_queries=tf.size(queries, tf.int64),
            items=self._items.take(items),
            n_items=tf.size(items, tf.int64),
            query_of=query_of,
            item_of=item_of,
            recall=recall,
        )
