"""Where negatives come from, and which positives are kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Source(enum.IntEnum):
    """The origin of a sampled negative."""

    UNIFORM = 0
    POPULARITY = 1
    MINED = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedSampler:
    """Draws the negatives that a batch shares: distinct items, some uniform, some by popularity.

    Only items that could have been chosen are drawn: those with a training interaction. Others were
    nobody's positive, so that as negatives they would only be pushed away.

    A draw costs O(uniform + popularity log n_items), whatever the number of items.
    """

    uniform: int
    popularity: int
    candidates: NDArray[np.int64]
    """Rows of the items that can be drawn, ascending, [n_candidates]."""
    cumulative: NDArray[np.float64]
    """Running sum of popularity^power over the candidates, [n_candidates]."""

    @classmethod
    def build(
        cls, popularity: NDArray[np.int64], *, uniform: int, by_popularity: int, power: float
    ) -> SharedSampler:
        """Prepare a sampler over items with these numbers of training interactions."""
        candidates = np.flatnonzero(popularity)
        return cls(
            uniform=min(uniform, len(candidates)),
            popularity=by_popularity,
            candidates=candidates,
            cumulative=np.cumsum(popularity[candidates].astype(np.float64) ** power),
        )

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Draw item rows [n] without repetition, and the source of each."""
        size = len(self.candidates)
        items = rng.choice(size, self.uniform, replace=False, shuffle=False)
        if self.popularity:
            at = rng.random(self.popularity) * self.cumulative[-1]
            popular = np.searchsorted(self.cumulative, at, side="right")
            items = np.concatenate([items, np.minimum(popular, size - 1)])
        unique, first = np.unique(items, return_index=True)
        sources = np.where(first < self.uniform, Source.UNIFORM, Source.POPULARITY)
        return self.candidates[unique], sources.astype(np.int8)


@dataclass(frozen=True, kw_only=True, eq=False)
class MinedNegatives:
    """What a previous version retrieved for each user, the user's known positives removed."""

    items: NDArray[np.int32]
    """Item rows [n_users, n], padded with -1: of these ranks all, or some by chance."""
    version: int
    """The version that retrieved them."""
    ranks: tuple[int, int]
    """First and last rank that they were taken from."""

    def draw(
        self, users: NDArray[np.int64], rng: np.random.Generator, *, count: int
    ) -> NDArray[np.int64]:
        """Draw up to `count` distinct items for each of the user rows [batch].

        Returns:
            item rows [batch, count], in no order that matters; -1 where a draw hit the padding or
            repeated an item.
        """
        if not self.items.shape[1]:
            return np.full((len(users), count), -1, dtype=np.int64)
        columns = rng.integers(self.items.shape[1], size=(len(users), count))
        drawn = np.sort(self.items[users[:, np.newaxis], columns].astype(np.int64), axis=1)
        is_repeated = drawn[:, 1:] == drawn[:, :-1]
        drawn[:, 1:][is_repeated] = -1
        return drawn

    def provenance(self) -> dict[str, Any]:
        """Say where they come from, as plain values."""
        return {"version": self.version, "ranks": list(self.ranks), "queries": len(self.items)}


def keep_probability(popularity: NDArray[np.int64], *, threshold: float) -> NDArray[np.float64]:
    """Say how likely a positive of each item is kept: min(1, sqrt(t/f) + t/f); [n_items].

    f is the item's share of all interactions. A threshold of 0 keeps everything.
    Source: the sub-sampling of frequent words in word2vec's reference implementation.
    """
    total = max(int(popularity.sum()), 1)
    if threshold == 0.0:
        return np.ones(len(popularity))
    ratio = threshold / np.maximum(popularity / total, 1e-300)
    return np.minimum(1.0, np.sqrt(ratio) + ratio)
