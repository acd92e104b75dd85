"""The four directions of retrieval, and the geometry of each.

With V_user = [1 ; pooled user] and V_item = [own ; pooled item], float32 [n, 1 + d]:

| direction | ranks | by | score |
|---|---|---|---|
| u2i | items for a user | V_user . V_item | the same: the match score of the pair |
| i2u | users for an item | pooled user . pooled item | that + own: the match score of the pair |
| i2i | items like an item | cosine of the pooled parts | the same |
| u2u | users like a user | cosine of the pooled parts | the same |

u2i is never normalised, so that its order is the factorization machine's own. In i2u an item's own
quality is the same for every user and cannot change the order. In i2i and u2u it must not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from towers.schema import Side

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

    def corpus(self, targets: tf.Tensor) -> tf.Tensor:
        """The vectors [n, width] to search, from the targets' vectors [n, 1 + d]."""
        return self._project(targets)

    def queries(self, sources: tf.Tensor) -> tf.Tensor:
        """The vectors [n, width] to search with, from the sources' vectors [n, 1 + d]."""
        return self._project(sources)

    def constant(self, sources: tf.Tensor) -> tf.Tensor:
        """What each query's scores [n] lack after the search: an item's own quality in i2u."""
        own = tf.convert_to_tensor(sources)[:, 0]
        return own if self.name == "i2u" else tf.zeros_like(own)

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same as `corpus` and `queries` by NumPy: quicker for a few vectors, smaller for many.

        Of vectors as they are, or of a part of them, a view is returned.
        """
        if self.name == "u2i":
            return vectors
        pooled = vectors[:, 1:]
        if not self.is_similarity:
            return pooled
        unit = np.empty_like(pooled)
        for start in range(0, len(pooled), BLOCK):
            unit[start : start + BLOCK] = _unit_rows(pooled[start : start + BLOCK])
        return unit

    def _project(self, vectors: tf.Tensor) -> tf.Tensor:
        """Bring vectors to where the inner product is what the direction ranks by."""
        if self.name == "u2i":
            return tf.convert_to_tensor(vectors)
        pooled = vectors[:, 1:]
        return _unit(pooled) if self.is_similarity else tf.convert_to_tensor(pooled)


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


def _unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same as `_unit` by NumPy."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
        scaled = vectors / np.where(largest > 0, largest, 1)
        norm = np.linalg.norm(scaled, axis=1, keepdims=True)
        return (scaled / np.where(norm > 0, norm, 1)).astype(np.float32, copy=False)


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    """Scale rows to length 1; zero stays zero.

    The largest coordinate goes to 1 first, so that no square leaves float32's range.
    """
    largest = tf.reduce_max(tf.abs(vectors), axis=1, keepdims=True)
    scaled = tf.math.divide_no_nan(vectors, largest)
    return tf.math.divide_no_nan(scaled, tf.norm(scaled, axis=1, keepdims=True))
