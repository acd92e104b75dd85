"""The terms of a score: an exact sum over features and their pairs.

With the bags of a user, u, and of an item, t, the match score of u2i and i2u is

    sum_t w_t x_t + sum_{t < t'} <v_t, v_t'> x_t x_t' + sum_u sum_t <v_u, v_t> x_u x_t

and the cosine of i2i and u2u, of a source, s, and a target, t,

    sum_s sum_t <v_s, v_t> x_s x_t / (|sum_s v_s x_s| |sum_t v_t x_t|)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.explanation.bag import Bag, Floats
from towers.directions import Direction
from towers.errors import QueryError

Kind = Literal["first_order", "item_pair", "user_item", "shared", "similar"]
KINDS: tuple[Kind, ...] = ("first_order", "item_pair", "user_item", "shared", "similar")
"""An item's feature; two of one item; one of a user with one of an item; in similarities, the same
feature on both sides, and two others."""

MOST_TERMS = 1_000_000
"""Of one score; only features with lists of hundreds of tokens on both sides come to more."""

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms that sum to a score, [n] each."""

    kind: Places
    """Which of `KINDS`."""
    source: Places
    """The place of a feature in the source's bag; -1 for none."""
    target: Places
    """Likewise, in the target's."""
    other: Places
    """Of a pair within an item, the place of its second feature in the item's bag; -1 for none."""
    value: Floats

    def take(self, places: Places) -> Terms:
        """Some of them."""
        return Terms(
            self.kind[places],
            self.source[places],
            self.target[places],
            self.other[places],
            self.value[places],
        )


def split_score(direction: Direction, source: Bag, target: Bag) -> Terms:
    """Split the score of a pair into its terms.

    Raises:
        QueryError: there may be more than `MOST_TERMS`.
    """
    item = source if direction.source == "item" else target
    n_terms = len(target.rows) * len(source.rows) + len(item.rows) ** 2
    if n_terms > MOST_TERMS:
        raise QueryError(
            f"features: expected at most {MOST_TERMS} terms of a score, received "
            f"{len(source.rows)} features of the source and {len(target.rows)} of the target; "
            "leave some out"
        )
    if direction.is_similarity:
        return _split_cosine(source, target)
    own = [_first_order(item), _pairs_within(item)]
    if direction.source == "item":
        own = [Terms(one.kind, one.target, one.source, one.other, one.value) for one in own]
    cross = _cross(source, target)
    kind = np.full(cross.size, KINDS.index("user_item"))
    return _join([*own, _paired(kind, cross)])


def _split_cosine(source: Bag, target: Bag) -> Terms:
    """Split a similarity; that of a vector of length 0 is 0, and so are its terms."""
    lengths = np.linalg.norm(source.pooled) * np.linalg.norm(target.pooled)
    cross = _cross(source, target) / (lengths or np.inf)
    is_shared = np.equal.outer(source.rows, target.rows).ravel()
    kind = np.where(is_shared, KINDS.index("shared"), KINDS.index("similar"))
    return _paired(kind, cross)


def _cross(source: Bag, target: Bag) -> Floats:
    """<v_s, v_t> x_s x_t of each pair, [n_source, n_target]."""
    cross: Floats = source.terms @ target.terms.T
    return cross


def _paired(kind: Places, cross: Floats) -> Terms:
    """List the pairs of a matrix."""
    source, target = (places.ravel() for places in np.indices(cross.shape))
    return Terms(kind, source, target, np.full(cross.size, -1), cross.ravel())


def _first_order(item: Bag) -> Terms:
    """w_t x_t of each feature of an item, as a target."""
    n = len(item.rows)
    nothing = np.full(n, -1)
    kind = np.full(n, KINDS.index("first_order"))
    return Terms(kind, nothing, np.arange(n), nothing, item.w * item.x)


def _pairs_within(item: Bag) -> Terms:
    """<v_t, v_t'> x_t x_t' of each pair of features of an item, as a target."""
    first, second = np.triu_indices(len(item.rows), k=1)
    value = _cross(item, item)[first, second]
    kind = np.full(len(first), KINDS.index("item_pair"))
    return Terms(kind, np.full(len(first), -1), first, second, value)


def _join(several: list[Terms]) -> Terms:
    """Put terms one after another."""
    return Terms(
        np.concatenate([one.kind for one in several]),
        np.concatenate([one.source for one in several]),
        np.concatenate([one.target for one in several]),
        np.concatenate([one.other for one in several]),
        np.concatenate([one.value for one in several]),
    )
