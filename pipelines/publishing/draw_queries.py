"""Draw the queries that an index is checked with, as they will come once it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipelines.data.dataset import Dataset
from pipelines.data.events import Block
from pipelines.training.embed import Vectors, embed_block
from towers.directions import Direction
from towers.features.schema import Side
from towers.two_tower import TwoTower

NEWCOMER = 3
"""The items in the history of a newcomer, at most."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Vectors of sources, in groups that are each to find their neighbours."""

    vectors: NDArray[np.float32]
    """[n, 1 + d]."""
    groups: Mapping[str, slice]
    """Which of them are of a group, by its name in words."""

    def of(self, direction: Direction) -> Queries:
        """The same in the geometry of a direction."""
        return Queries(direction.project(self.vectors), self.groups)


def draw_queries(
    model: TwoTower, dataset: Dataset, vectors: Vectors, *, size: int, seed: int
) -> dict[Side, Queries]:
    """Draw queries of each side: a half as often as they come, and a half of those that are rare.

    Users come as often as they interacted, items as often as somebody did with them. Rare are
    newcomers, who are users with their first items only, and items however few know them.

    Args:
        model: embeds the newcomers.
        dataset: users, items and interactions.
        vectors: of all users and items.
        size: queries of each side; fewer where there are fewer users or items.
        seed: decides the draw.
    """
    rng = np.random.default_rng(seed)
    counts: dict[Side, NDArray[np.int64]] = {
        "user": dataset.interactions.user_counts,
        "item": dataset.interactions.item_counts,
    }
    half = -(-size // 2)
    usual = {side: _draw(rng, counts[side], half) for side in counts}
    users = np.sort(rng.choice(len(vectors["user"]), min(half, len(vectors["user"])), False))
    items = rng.choice(len(vectors["item"]), min(half, len(vectors["item"])), False)
    newcomers = _newcomers(model, dataset, users)
    return {
        "user": _grouped(
            {"users by activity": vectors["user"][usual["user"]], "newcomers": newcomers}
        ),
        "item": _grouped(
            {
                "items by traffic": vectors["item"][usual["item"]],
                "items of any kind": vectors["item"][items],
            }
        ),
    }


def _draw(rng: np.random.Generator, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Draw different rows, each with a chance that grows with its count."""
    weights = counts.astype(np.float64)
    if not weights.any():
        weights += 1.0
    size = min(size, int(np.count_nonzero(weights)))
    return rng.choice(len(weights), size, replace=False, p=weights / weights.sum())


def _newcomers(model: TwoTower, dataset: Dataset, users: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed users [n], rows in order, as they were after their first items."""
    matrix = sparse.csr_array(dataset.interactions.of(users)[users])
    sizes = np.minimum(np.diff(matrix.indptr), NEWCOMER)
    first = np.repeat(matrix.indptr[:-1], sizes)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = first + within
    ends = np.concatenate([[0], np.cumsum(sizes)])
    early = sparse.csr_array((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)
    return embed_block(model, dataset, Block(users, early))


def _grouped(groups: Mapping[str, NDArray[np.float32]]) -> Queries:
    """Put groups of vectors one after another."""
    ends = np.cumsum([len(vectors) for vectors in groups.values()]).tolist()
    slices = map(slice, [0, *ends], ends)
    return Queries(np.concatenate(list(groups.values())), dict(zip(groups, slices, strict=False)))


def one_of(some: int, part: slice) -> slice:
    """Where the queries `part` are, if only one of `some` is kept of all of them."""
    return slice(-(-part.start // some), -(-part.stop // some))
