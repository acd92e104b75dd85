"""Interactions in a table, as a dataset or a matrix of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, ids_of
from pipelines.data.dataset import Dataset, assemble_dataset
from towers.features.schema import Schema


def build_dataset(
    schema: Schema, *, users: pd.DataFrame, items: pd.DataFrame, interactions: pd.DataFrame
) -> Dataset:
    """Do what `assemble_dataset` does, with interactions by id, each user's from old to new."""
    matrix = interaction_matrix(
        interactions,
        user_ids=ids_of(users, schema.user_id),
        item_ids=ids_of(items, schema.item_id),
    )
    held = HeldInteractions(matrix, has_times="timestamp" in interactions.columns)
    return assemble_dataset(schema, users=users, items=items, interactions=held)


def interaction_matrix(
    interactions: pd.DataFrame, *, user_ids: NDArray[Any], item_ids: NDArray[Any]
) -> sparse.csr_array:
    """Turn interactions into weights [n_users, n_items] float32, each user's in their order."""
    users = pd.Index(user_ids).get_indexer(interactions["user_id"])
    items = pd.Index(item_ids).get_indexer(interactions["item_id"])
    order = np.argsort(users, kind="stable")
    counts = np.bincount(users, minlength=len(user_ids))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    weights = interactions["weight"].to_numpy(np.float32)[order]
    return sparse.csr_array(
        (weights, items[order].astype(np.int64), indptr), shape=(len(user_ids), len(item_ids))
    )
