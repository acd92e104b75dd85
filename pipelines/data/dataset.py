"""Dataset: users, items and interactions as rows and bags, ready for fitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import Block, HeldInteractions, Interactions, ids_of
from towers.encoder import Encoder
from towers.growth import grow_vocabulary
from towers.packer import input_dtypes, pack
from towers.schema import Schema, Side, space_of
from towers.vocabulary import Tokens, Vocabulary, fit_vocabulary, history_weights

ENCODE_BATCH = 8192


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
    history_weights: NDArray[np.float32]
    """x of each item in a history before 1/sqrt(n), [n_items]."""

    def rows_without_ids(self, side: Side) -> NDArray[np.int64]:
        """The columns of a side's bags, [n_entries], as of users or items that nobody has seen.

        In place of the row of an id there is the row of unknown ids, in bags that hold more.
        """
        bags = self.user_bags if side == "user" else self.item_bags
        rows = bags.indices.astype(np.int64)
        id_column = self.schema.id_column(side)
        feature = next((f for f in self.schema.features(side) if f.column == id_column), None)
        if feature is None:
            return rows
        space = self.vocabulary.spaces[space_of(feature, side=side, schema=self.schema)]
        if not isinstance(space, Tokens):
            return rows
        sizes = np.diff(bags.indptr)
        is_id = np.isin(rows, space.rows) & (np.repeat(sizes, sizes) > 1)
        return np.where(is_id, space.oov_row, rows)

    def query_bags(self, block: Block) -> sparse.csr_array:
        """Bags of a block's users with the latest items of their history, [n, n_rows] float32."""
        feature = self.schema.history
        bags = self.user_bags
        if len(block.users) < bags.shape[0]:
            bags = bags[block.users]
        if feature is None:
            return bags
        users, rows, values = history_entries(
            self,
            users=np.repeat(np.arange(len(block.users)), np.diff(block.matrix.indptr)),
            items=block.matrix.indices.astype(np.int64),
            n_users=len(block.users),
            latest=feature.latest,
        )
        past = sparse.csr_array((values, (users, rows)), shape=bags.shape)
        return sparse.csr_array(bags + past)


def build_dataset(
    schema: Schema,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    interactions: pd.DataFrame,
    earlier: Vocabulary | None = None,
) -> Dataset:
    """Fit the vocabulary on a table of interactions and encode every user and item with it.

    Args:
        schema: the features.
        users: all users, also those without an interaction.
        items: all items, likewise.
        interactions: the positives to learn from, in order of time where they have one.
        earlier: the vocabulary to grow, in place of a new one.

    Raises:
        DataError: a column's values are of another type than in the earlier vocabulary.
    """
    held = HeldInteractions.from_frame(
        interactions,
        user_ids=ids_of(users, schema.user_id),
        item_ids=ids_of(items, schema.item_id),
    )
    return assemble_dataset(schema, users=users, items=items, interactions=held, earlier=earlier)


def assemble_dataset(
    schema: Schema,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    interactions: Interactions,
    earlier: Vocabulary | None = None,
) -> Dataset:
    """Do what `build_dataset` does, with interactions by row."""
    tables: dict[str, Any] = {
        "users": users,
        "items": items,
        "user_counts": interactions.user_counts,
        "item_counts": interactions.item_counts,
    }
    if earlier is None:
        vocabulary = fit_vocabulary(schema, **tables)
    else:
        vocabulary = grow_vocabulary(earlier, schema, **tables)
    item_ids = ids_of(items, schema.item_id)
    rows, weights = _history_items(schema, vocabulary, item_ids)
    return Dataset(
        schema=schema,
        vocabulary=vocabulary,
        user_ids=ids_of(users, schema.user_id),
        item_ids=item_ids,
        user_bags=encode_table(schema, vocabulary, side="user", table=users),
        item_bags=encode_table(schema, vocabulary, side="item", table=items),
        interactions=interactions,
        history_rows=rows,
        history_weights=weights,
    )


def encode_table(
    schema: Schema, vocabulary: Vocabulary, *, side: Side, table: pd.DataFrame
) -> sparse.csr_array:
    """Encode a table through the encoder's graph; bags [n, n_rows] float32, histories empty."""
    encoder = Encoder(schema, vocabulary, side=side)
    inputs = input_dtypes(schema, vocabulary, side=side)
    columns = schema.columns(side)
    parts = []
    for start in range(0, len(table), ENCODE_BATCH):
        chunk = table.iloc[start : start + ENCODE_BATCH]
        raw = {name: chunk[column] for name, column in columns.items()}
        x = encoder(pack(raw, inputs=inputs, size=len(chunk)))
        query, row = x.indices.numpy().T
        shape = (len(chunk), vocabulary.n_rows)
        parts.append(sparse.csr_array((x.values.numpy(), (query, row)), shape=shape))
    return sparse.vstack(parts, format="csr")


def history_entries(
    dataset: Dataset,
    *,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    n_users: int,
    latest: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Turn pairs of a query and a past item into entries of bags, as the encoder would.

    Args:
        dataset: gives the items' rows and weights.
        users: query positions [n], ascending; each query's items from old to new.
        items: item rows [n].
        n_users: the number of queries.
        latest: how many of a query's known items count.

    Returns:
        query positions, rows of the feature table and x = c pop^-b / sqrt(n), each [n_kept].
    """
    known = dataset.history_rows[items] >= 0
    users, items = users[known], items[known]
    counts = np.bincount(users, minlength=n_users)
    ends = np.cumsum(counts)
    recent = ends[users] - np.arange(len(users)) <= latest
    users, items = users[recent], items[recent]
    n = np.minimum(counts, latest)[users]
    values = dataset.history_weights[items] / np.sqrt(n)
    return users, dataset.history_rows[items], values.astype(np.float32)


def _history_items(
    schema: Schema, vocabulary: Vocabulary, item_ids: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Look up each item's row and weight in a history; row -1 where training does not know it."""
    feature = schema.history
    if feature is None:
        return np.full(len(item_ids), -1, dtype=np.int64), np.ones(len(item_ids), dtype=np.float32)
    space = vocabulary.tokens(space_of(feature, side="user", schema=schema))
    position = pd.Index(space.tokens).get_indexer(item_ids)
    weights = history_weights(space.counts, power=feature.popularity_power)
    rows = np.append(space.rows, -1)  # for position -1, an unknown id
    weights = np.append(weights, np.float32(1.0))
    return rows[position], weights[position]
