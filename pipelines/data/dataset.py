"""Dataset: users, items and interactions as rows and bags, ready for fitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import Interactions, all_blocks, first_times, ids_of
from pipelines.data.encode_table import encode_contexts, encode_table, encode_vectors
from pipelines.data.events import Block, past_of
from towers.dense import Dense
from towers.features.growth import grow_vocabulary
from towers.features.kinds import History
from towers.features.past_items import PastItems
from towers.features.schema import Schema, Side, space_of
from towers.features.vocabulary import Tokens, Vocabulary, fit_vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """What one fit reads. Users and items are rows of the user and the item table."""

    schema: Schema
    vocabulary: Vocabulary
    user_ids: NDArray[Any]
    """External ids [n_users], int64 or str objects."""
    item_ids: NDArray[Any]
    """External ids [n_items]."""
    user_bags: sparse.csr_array
    """Bags of the users without their history, [n_users, n_rows] float32."""
    item_bags: sparse.csr_array
    """Bags of the items, [n_items, n_rows] float32."""
    interactions: Interactions
    """The positives of every user."""
    history_rows: NDArray[np.int64]
    """The row of each item's id in the feature table, [n_items]; -1 for an unknown id."""
    pasts: Mapping[str, PastItems]
    """What the items bring to each history, by its name."""
    context_bags: sparse.csr_array | None = None
    """The bags of each moment's context, [n_moments, n_rows]; None where there is none."""
    vectors: Mapping[Side, NDArray[np.float32]] = field(default_factory=dict)
    """The scaled numbers of the vectors of a side, [n, m], where it has some."""
    available: NDArray[np.float64] | None = None
    """The time from which each item could be chosen, [n_items], NaN where its table gives none;
    None where it has no such times."""

    def with_schema(self, schema: Schema) -> Dataset:
        """The same under a schema whose histories alone differ."""
        pasts = _pasts(
            schema,
            self.vocabulary,
            ids=self.item_ids,
            item_bags=self.item_bags,
            dense=self.dense("item"),
        )
        return dataclasses.replace(self, schema=schema, pasts=pasts)

    def forgetting(self, items: NDArray[np.int64]) -> Dataset:
        """The same where some items bring nothing to histories, as if nobody had chosen them."""
        pasts = {name: past.without(items) for name, past in self.pasts.items()}
        return dataclasses.replace(self, pasts=pasts)

    def first_times(self) -> NDArray[np.float64] | None:
        """The time from which each item could be chosen, [n_items]; None without times.

        It is what the table of items says, or the first interaction where that came earlier.
        """
        chosen = first_times(self.interactions)
        if chosen is None or self.available is None:
            return chosen
        return np.fmin(chosen, self.available)

    def dense(self, side: Side) -> Dense:
        """The numbers of the vectors of a side, [n, m], which its bags do not have."""
        n = len(self.user_ids if side == "user" else self.item_ids)
        x = self.vectors.get(side, np.zeros((n, 0), dtype=np.float32))
        return Dense(x, self.vocabulary.dense_rows(side).start)

    def rows_without_ids(self, side: Side) -> NDArray[np.int64]:
        """The columns of a side's bags, [n_entries], as of users or items that nobody has seen.

        In place of the row of an id there is the row of unknown ids, in bags that hold more.
        """
        bags = self.user_bags if side == "user" else self.item_bags
        rows = bags.indices.astype(np.int64)
        space = self._id_space(side)
        if space is None:
            return rows
        sizes = np.diff(bags.indptr)
        holds_more = (sizes > 1) | self.dense(side).x.any(axis=1)
        is_id = np.isin(rows, space.rows) & np.repeat(holds_more, sizes)
        return np.where(is_id, space.oov_row, rows)

    @property
    def past(self) -> PastItems | None:
        """What the items bring to the history of the positives; None where users have none."""
        history = self.schema.history
        return None if history is None else self.pasts[history.name]

    @property
    def knows_item(self) -> NDArray[np.bool_]:
        """Whether training tells an item by its id, [n_items]; all, where ids are no feature.

        An id may have a row and be unknown nonetheless: that of an item that nobody has chosen.
        """
        space = self._id_space("item")
        known = np.full(len(self.item_ids), space is None)
        if space is not None:
            owners = np.repeat(np.arange(len(known)), np.diff(self.item_bags.indptr))
            known[owners[np.isin(self.item_bags.indices, space.rows)]] = True
            known &= self.interactions.item_counts > 0
        return known

    def id_rows(self, side: Side) -> NDArray[np.int64]:
        """The row of each user's or item's id in the feature table, [n]; -1 without a row."""
        bags, space = self.user_bags if side == "user" else self.item_bags, self._id_space(side)
        found = np.full(bags.shape[0], -1, dtype=np.int64)
        if space is not None:
            is_id = np.isin(bags.indices, space.rows)
            owners = np.repeat(np.arange(len(found)), np.diff(bags.indptr))
            found[owners[is_id]] = bags.indices[is_id]
        return found

    @property
    def unchosen(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The items that nobody has chosen and whose ids have rows, and these rows, [n] each."""
        found = np.flatnonzero((self.history_rows >= 0) & (self.interactions.item_counts == 0))
        return found, self.history_rows[found]

    @property
    def unknown_item_row(self) -> int | None:
        """The row that items of unknown ids share; None where ids are no feature."""
        space = self._id_space("item")
        return None if space is None else space.oov_row

    def content_bags(self, side: Side) -> tuple[sparse.csr_array, NDArray[np.int64]]:
        """The bags of a side without ids and unknown tokens, [n, m], and the rows [m] of columns.

        Rows are those that come in some bag.
        """
        bags = self.user_bags if side == "user" else self.item_bags
        is_left_out = np.zeros(self.vocabulary.n_rows, dtype=np.bool_)
        is_left_out[self.vocabulary.oov_rows] = True
        space = self._id_space(side)
        if space is not None:
            is_left_out[space.rows] = True
        kept = ~is_left_out[bags.indices]
        starts = np.concatenate([[0], np.cumsum(kept)])[bags.indptr]
        columns, codes = np.unique(bags.indices[kept], return_inverse=True)
        shape = (bags.shape[0], len(columns))
        content = sparse.csr_array((bags.data[kept], codes.ravel(), starts), shape=shape)
        return content, columns.astype(np.int64)

    @cached_property
    def described(self) -> NDArray[np.bool_]:
        """Of which users something is known besides their past, [n_users]."""
        tells = ~np.isin(self.user_bags.indices, self.vocabulary.oov_rows)
        found = np.add.reduceat(np.append(tells, False), self.user_bags.indptr[:-1]) > 0
        found &= np.diff(self.user_bags.indptr) > 0
        return np.asarray(found | self.dense("user").x.any(axis=1))

    def query_bags(self, block: Block) -> sparse.csr_array:
        """Bags of a block's users with the latest items of their history, [n, n_rows] float32.

        Those without a history have what newcomers have, or the default user of whom nothing is
        known.
        """
        bags, has_past = self.user_bags, np.zeros(len(block.users), dtype=np.bool_)
        if len(block.users) < bags.shape[0]:
            bags = bags[block.users]
        for history in self.schema.histories:
            weights = self.history_of(block, history)
            bags = sparse.csr_array(bags + weights @ self.pasts[history.name].bags)
            has_past |= np.diff(weights.indptr) > 0
        described = self.described[block.users]
        stand_ins = {
            self.vocabulary.newcomer_row: described & ~has_past,
            self.vocabulary.default_user_row: ~(described | has_past),
        }
        for row, has_it in stand_ins.items():
            queries = np.flatnonzero(has_it)
            if row is not None and len(queries):
                entries = np.ones(len(queries), np.float32), (queries, np.full(len(queries), row))
                bags = sparse.csr_array(bags + sparse.csr_array(entries, shape=bags.shape))
        return bags

    def query_dense(self, block: Block) -> Dense:
        """The numbers of the vectors of a block's users, then those that histories bring; [n, m].

        They are those of the rows `vocabulary.dense_rows("user", "item")`.
        """
        own = self.dense("user").take(block.users)
        brought = np.zeros((len(block.users), self.dense("item").x.shape[1]), dtype=np.float32)
        for history in self.schema.histories:
            x = self.pasts[history.name].dense.x
            if x.size:
                brought += self.history_of(block, history) @ x
        first = self.vocabulary.dense_rows("user", "item").start
        return Dense(np.concatenate([own.x, brought], axis=1), first)

    def history_of(self, block: Block, history: History) -> sparse.csr_array:
        """Say how much each item counts in a history of a block's users; [n, n_items] float32."""
        matrix = block.matrix if history.behaviours is None else past_of(block, history)
        return self.history_weights(
            history,
            users=np.repeat(np.arange(len(block.users)), np.diff(matrix.indptr)),
            items=matrix.indices.astype(np.int64),
            n_users=len(block.users),
        )

    def history_weights(
        self,
        history: History,
        *,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        n_users: int,
    ) -> sparse.csr_array:
        """Say how much each past item counts for each query, as the encoder would.

        Of each query the latest n items count, at most as many as the schema says, of those that
        bring something: 1/sqrt(n) each, or less for those that came earlier; see `History`. An item
        that comes several times counts once, at its last place.

        Args:
            history: the feature.
            users: query positions [m], ascending; each query's items from old to new.
            items: item rows [m].
            n_users: the number of queries.

        Returns:
            [n_users, n_items] float32; each query's items from old to new.
        """
        latest = history.latest
        kept = self._brings[history.name][items]
        users, items = users[kept], items[kept]
        if history.behaviours is not None:  # a positive comes once
            last = _latest_of_each(users * len(self.item_ids) + items)
            users, items = users[last], items[last]
        counts = np.bincount(users, minlength=n_users)
        later = np.cumsum(counts)[users] - np.arange(len(users)) - 1  # how many items came after
        recent = later < latest
        users, items, later = users[recent], items[recent], later[recent]
        counts = np.minimum(counts, latest)
        weights = np.ones(len(users))
        if history.half_life is not None:
            weights = np.exp2(-later / history.half_life)
        length = np.sqrt(np.bincount(users, weights=weights**2, minlength=n_users))
        values = (weights / length[users]).astype(np.float32)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return sparse.csr_array((values, items, starts), shape=(n_users, len(self.item_ids)))

    def _id_space(self, side: Side) -> Tokens | None:
        """The learned space of a side's ids, if they are a feature."""
        space = self.vocabulary.spaces.get(f"{side}.{self.schema.id_input(side)}")
        return space if isinstance(space, Tokens) else None

    @cached_property
    def _brings(self) -> dict[str, NDArray[np.bool_]]:
        """Which items count in each history, [n_items]."""
        return {name: past.brings for name, past in self.pasts.items()}


def _latest_of_each(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last place of each of the keys [m], ascending."""
    _, from_end = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - from_end)


def assemble_dataset(
    schema: Schema,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    interactions: Interactions,
    earlier: Vocabulary | None = None,
    contexts: pd.DataFrame | None = None,
    available: NDArray[np.float64] | None = None,
) -> Dataset:
    """Fit the vocabulary on interactions, and encode every user and item with it.

    Args:
        schema: the features.
        users: all users, also those without an interaction.
        items: all items, likewise.
        interactions: the positives to learn from, by the rows of `users` and `items`.
        earlier: the vocabulary to grow, in place of a new one.
        contexts: the context of each moment of the interactions, where there is one.
        available: the time from which each item could be chosen; see `Dataset.available`.

    Raises:
        DataError: a column's values are of another type than in the earlier vocabulary.
    """
    tables: dict[str, Any] = {
        "users": users,
        "items": items,
        "user_counts": interactions.user_counts,
        "item_counts": interactions.item_counts,
    }
    if contexts is not None:
        tables |= {"contexts": contexts, "context_counts": _count_moments(interactions, contexts)}
    if earlier is None:
        vocabulary = fit_vocabulary(schema, **tables)
    else:
        vocabulary = grow_vocabulary(earlier, schema, **tables)
    dataset = encode_dataset(
        schema,
        vocabulary,
        users=users,
        items=items,
        interactions=interactions,
        contexts=contexts,
    )
    return dataclasses.replace(dataset, available=available)


def encode_dataset(
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    interactions: Interactions,
    contexts: pd.DataFrame | None = None,
) -> Dataset:
    """Encode every user and item with a vocabulary; see `assemble_dataset`."""
    item_ids = ids_of(items, schema.item_id)
    item_bags = encode_table(schema, vocabulary, side="item", table=items)
    vectors: dict[Side, NDArray[np.float32]] = {
        "user": encode_vectors(schema, vocabulary, side="user", table=users),
        "item": encode_vectors(schema, vocabulary, side="item", table=items),
    }
    dense = Dense(vectors["item"], vocabulary.dense_rows("item").start)
    return Dataset(
        schema=schema,
        vocabulary=vocabulary,
        user_ids=ids_of(users, schema.user_id),
        item_ids=item_ids,
        user_bags=encode_table(schema, vocabulary, side="user", table=users),
        item_bags=item_bags,
        interactions=interactions,
        history_rows=_history_rows(schema, vocabulary, item_ids),
        pasts=_pasts(schema, vocabulary, ids=item_ids, item_bags=item_bags, dense=dense),
        context_bags=None if contexts is None else encode_contexts(schema, vocabulary, contexts),
        vectors=vectors,
    )


def _pasts(
    schema: Schema,
    vocabulary: Vocabulary,
    *,
    ids: NDArray[Any],
    item_bags: sparse.csr_array,
    dense: Dense,
) -> dict[str, PastItems]:
    """What items bring to each history."""
    return {
        history.name: PastItems.build(
            schema, vocabulary, history=history, ids=ids, item_bags=item_bags, dense=dense
        )
        for history in schema.histories
    }


def _count_moments(interactions: Interactions, contexts: pd.DataFrame) -> NDArray[np.int64]:
    """The number of positives of each moment, [n_moments]."""
    counts = np.zeros(len(contexts), dtype=np.int64)
    for block in all_blocks(interactions):
        counts += np.bincount(block.moments, minlength=len(counts))
    return counts


def _history_rows(
    schema: Schema, vocabulary: Vocabulary, item_ids: NDArray[Any]
) -> NDArray[np.int64]:
    """Look up the row of each item's id; -1 where training does not know it."""
    if not schema.histories or schema.item_id_feature is None:
        return np.full(len(item_ids), -1, dtype=np.int64)
    space = vocabulary.tokens(space_of(schema.item_id_feature, side="item", schema=schema))
    position = pd.Index(space.tokens).get_indexer(item_ids)
    return np.asarray(np.append(space.rows, -1)[position])
