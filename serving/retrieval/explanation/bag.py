"""Bag: the features that one vector is a sum of, with their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.search.index import Rows, Vectors
from towers.schema import Side

Floats = NDArray[np.float64]
Packed = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-5
"""How far a coordinate may be from the stored one, in shares of the sum of its terms' sizes."""


@dataclass(frozen=True, eq=False)
class Bag:
    """The entries of one user or item, in float64."""

    rows: Rows
    """Of the feature table, [n]; none twice."""
    x: Floats
    """Their values, [n]."""
    v: Floats
    """Their vectors, [n, d]."""
    w: Floats
    """Their first-order weights, [n]; 0 for a user, whose own do not count."""

    @cached_property
    def terms(self) -> Floats:
        """Each vector times its value, v x, [n, d]."""
        terms: Floats = self.v * self.x[:, np.newaxis]
        return terms

    @cached_property
    def pooled(self) -> Floats:
        """The sum of v x, [d]: the vector without its first coordinate."""
        pooled: Floats = self.terms.sum(axis=0)
        return pooled

    @property
    def own(self) -> float:
        """What an item brings to each of its scores: first-order terms, and pairs within it."""
        squares = self.pooled @ self.pooled - np.sum(self.terms**2)
        return float(self.w @ self.x + squares / 2)

    def vector(self, side: Side) -> Floats:
        """V_user or V_item, [1 + d]."""
        return np.concatenate([[1.0 if side == "user" else self.own], self.pooled])

    def take(self, order: Rows) -> Bag:
        """The same bag with its entries in another order."""
        return Bag(self.rows[order], self.x[order], self.v[order], self.w[order])

    def differs(self, stored: Vectors, *, side: Side) -> bool:
        """Whether a vector [1 + d] that float32 has summed is another than this bag's."""
        sizes = np.abs(self.terms).sum(axis=0)
        first = np.abs(self.w) @ np.abs(self.x) + sizes @ sizes if side == "item" else 1.0
        allowed = TOLERANCE * np.concatenate([[first], sizes]) + np.finfo(np.float32).tiny
        return bool((np.abs(self.vector(side) - stored) > allowed).any())
