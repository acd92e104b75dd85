"""Embed users and items with the towers of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.blocks import all_blocks, blocks_with
from pipelines.data.dataset import Dataset
from pipelines.data.events import Block
from pipelines.evaluation.evaluate import Scorer
from towers.dense import Dense
from towers.directions import DIRECTIONS
from towers.features.schema import Side
from towers.interactions.interaction import FM
from towers.two_tower import TwoTower

BATCH = 65_536

Vectors = dict[Side, NDArray[np.float32]]
"""V_user and V_item of every user and item, [n, 1 + d]."""


def embed_users(
    model: TwoTower, bags: sparse.csr_array, *, dense: Dense | None = None
) -> NDArray[np.float32]:
    """Run the user tower over bags [n_users, n_rows] and vectors; V_user [n_users, 1 + d]."""
    v = model.features.v
    return np.concatenate(
        [model.user_tower(x, v, dense=some).numpy() for x, some in _batches(bags, dense)]
    )


def embed_items(
    model: TwoTower, bags: sparse.csr_array, *, dense: Dense | None = None
) -> NDArray[np.float32]:
    """Run the item tower over bags [n_items, n_rows] and vectors; V_item [n_items, 1 + d]."""
    w, v = model.features.w, model.features.v
    return np.concatenate(
        [model.item_tower(x, w, v, dense=some).numpy() for x, some in _batches(bags, dense)]
    )


def embed_without_ids(
    model: TwoTower, dataset: Dataset, items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Embed some items of a dataset as if their ids were unknown; V_item [n, 1 + k]."""
    bags = dataset.item_bags
    parts = (bags.data, dataset.rows_without_ids("item"), bags.indptr)
    without = sparse.csr_array(parts, shape=bags.shape)[items]
    return embed_items(model, without, dense=dataset.dense("item").take(items))


def embed_block(model: TwoTower, dataset: Dataset, block: Block) -> NDArray[np.float32]:
    """Embed a block's users with the latest items of their histories; V_user [n, 1 + d]."""
    bags = dataset.query_bags(block)
    if not isinstance(model.features.interaction, FM):
        return embed_users(model, bags, dense=dataset.query_dense(block))
    dense = dataset.dense("user").take(block.users)
    users = embed_users(model, bags, dense=dense)
    for history in dataset.schema.histories:
        x, first = dataset.pasts[history.name].dense
        if x.size:  # the sum of products is the product of sums, and shorter
            pooled = x @ tf.gather(model.features.v, range(first, first + x.shape[1])).numpy()
            users[:, 1:] += dataset.history_of(block, history) @ pooled
    return users


def embed(
    model: TwoTower, dataset: Dataset, *, only_users: NDArray[np.int64] | None = None
) -> Vectors:
    """Embed the users of a dataset, with their histories, and all items.

    Args:
        model: has the towers.
        dataset: has the bags.
        only_users: the rows of those who are asked for; others' vectors are zero.
    """
    items = embed_items(model, dataset.item_bags, dense=dataset.dense("item"))
    users = np.zeros((len(dataset.user_ids), items.shape[1]), dtype=np.float32)
    if only_users is None:
        blocks = all_blocks(dataset.interactions)
    else:
        blocks = blocks_with(dataset.interactions, only_users)
    for block in blocks:
        users[block.users] = embed_block(model, dataset, block)
    return {"user": users, "item": items}


def match_scorer(vectors: Vectors) -> Scorer:
    """A scorer of every item for given users by the FM match score."""
    return lambda user_rows: DIRECTIONS["u2i"].score(vectors["user"][user_rows], vectors["item"])


def _batches(
    bags: sparse.csr_array, dense: Dense | None
) -> Iterator[tuple[tf.SparseTensor, Dense | None]]:
    """Cut bags into sparse tensors of at most `BATCH` rows, and vectors along with them."""
    for start in range(0, max(bags.shape[0], 1), BATCH):
        part = bags[start : start + BATCH].tocoo()
        indices = np.stack(part.coords, axis=1).astype(np.int64)
        some = None if dense is None else dense.take(slice(start, start + BATCH))
        yield tf.SparseTensor(indices, part.data, part.shape), some
