"""The four directions of retrieval, and the geometry of each.

With V_user = [1 ; pooled user] and V_item = [bias ; pooled item], floats [n, 1 + d]:

| direction | ranks | by | score |
|---|---|---|---|
| u2i | items for a user | V_user . V_item | the same: the match score of the pair |
| i2u | users for an item | pooled user . pooled item | that + bias: the match score of the pair |
| i2i | items like an item | cosine of the pooled parts | the same |
| u2u | users like a user | cosine of the pooled parts | the same |

u2i is never normalised, so that its order is the factorization machine's own. In i2u the item's
bias is the same for every user and cannot change the order. In i2i and u2u it must not count.

`Direction.score` is this table: the inner product of what `project` makes of sources and targets,
plus `offset` of the sources. An index holds projected targets and is asked projected sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from towers.features.schema import Side

F = TypeVar("F", np.float32, np.float64)

BLOCK = 65_536
"""Vectors that are brought to length 1 at a time."""


@dataclass(frozen=True)
class Direction:
    """From a source to the targets that are ranked for it."""

    source: Side
    target: Side

    @property
    def name(self) -> str:
        """`u2i`, `i2u`, `i2i` or `u2u`."""
        return f"{self.source[0]}2{self.target[0]}"

    @property
    def is_similarity(self) -> bool:
        """Whether source and target are of one side; a source is then no answer to itself."""
        return self.source == self.target

    def project(self, vectors: NDArray[F]) -> NDArray[F]:
        """Bring vectors [n, 1 + d] to where the inner product is what the direction ranks by.

        The same for sources and targets. [n, 1 + d] in u2i and [n, d] in the others; a view, where
        vectors or a part of them stay as they are.
        """
        if self.name == "u2i":
            return vectors
        pooled = vectors[:, 1:]
        return _unit(pooled) if self.is_similarity else pooled

    def offset(self, sources: NDArray[F]) -> NDArray[F]:
        """What a search by projected vectors leaves out of each source's scores, [n].

        In i2u, the first coordinate of the item, which is the same for all users; else 0.
        """
        bias = sources[:, 0]
        return bias if self.name == "i2u" else np.zeros_like(bias)

    def score(self, sources: NDArray[F], targets: NDArray[F]) -> NDArray[F]:
        """Score each source [n, 1 + d] with each target [m, 1 + d]; [n, m]."""
        found: NDArray[F] = self.project(sources) @ self.project(targets).T
        offset = self.offset(sources)
        return found + offset[:, np.newaxis] if offset.any() else found

    def project_tensor(self, vectors: tf.Tensor) -> tf.Tensor:
        """The same as `project`, as a TensorFlow graph."""
        if self.name == "u2i":
            return vectors
        pooled = vectors[:, 1:]
        return _unit_tensor(pooled) if self.is_similarity else pooled

    def offset_tensor(self, sources: tf.Tensor) -> tf.Tensor:
        """The same as `offset`, as a TensorFlow graph."""
        bias = sources[:, 0]
        return bias if self.name == "i2u" else tf.zeros_like(bias)


DIRECTIONS: Mapping[str, Direction] = MappingProxyType(
    {
        direction.name: direction
        for direction in (
            Direction("user", "item"),
            Direction("item", "item"),
            Direction("user", "user"),
            Direction("item", "user"),
        )
    }
)
"""The directions by name: u2i, i2i, u2u, i2u."""


def _unit(vectors: NDArray[F]) -> NDArray[F]:
    """Scale rows to length 1, a block at a time; zero stays zero.

    The largest coordinate goes to 1 first, so that no square leaves the range of the dtype.
    """
    unit = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            largest = np.abs(block).max(axis=1, keepdims=True, initial=0.0)
            scaled = block / np.where(largest > 0, largest, 1)
            norm = np.linalg.norm(scaled, axis=1, keepdims=True)
            unit[start : start + BLOCK] = scaled / np.where(norm > 0, norm, 1)
    return unit


def _unit_tensor(vectors: tf.Tensor) -> tf.Tensor:
    """The same as `_unit`, as a TensorFlow graph."""
    largest = tf.reduce_max(tf.abs(vectors), axis=1, keepdims=True)
    scaled = tf.math.divide_no_nan(vectors, largest)
    return tf.math.divide_no_nan(scaled, tf.norm(scaled, axis=1, keepdims=True))
