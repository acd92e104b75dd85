"""Terms: the table of what a score sums, and its group-by.

With the active features of a user, u, and of an item, t, the match score of u2i and i2u is

    sum_t w_t x_t + sum_{t < t'} <v_t, v_t'> x_t x_t' + sum_u sum_t <v_u, v_t> x_u x_t

and the cosine of i2i and u2u, of a source, s, and a target, t,

    sum_s sum_t <v_s, v_t> x_s x_t / (|sum_s v_s x_s| |sum_t v_t x_t|)

where v are the vectors that the coupled parts sum (`Interaction.effective`) and, within an item,
those of its left and its right. `towers.fm_numpy` computes each term. Whatever else is told of a
score sums rows of this table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.explanation.active_features import ActiveFeatures, Floats
from towers import fm_numpy
from towers.directions import Direction
from towers.errors import QueryError

Kind = Literal["first_order", "item_pair", "user_item", "shared", "similar"]
KINDS: tuple[Kind, ...] = ("first_order", "item_pair", "user_item", "shared", "similar")
"""An item's feature; two of one item; one of a user with one of an item; in similarities, the same
feature on both sides, and two others."""

MOST_TERMS = 1_000_000
"""Of one score; only features with lists of hundreds of tokens on both sides come to more."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Terms:
    """One row a term, [n] each.

    Features are known by their places among the active ones of their side or, after `group_by`, by
    the numbers of their groups.
    """

    kind: Numbers
    """Which of `KINDS`."""
    source: Numbers
    """A feature of the source; -1 for none."""
    target: Numbers
    """A feature of the target; -1 for none."""
    other: Numbers
    """Of a pair within an item, the second feature, of the same side as the first; -1 for none."""
    value: Floats

    def __len__(self) -> int:
        """How many, n."""
        return len(self.value)

    def take(self, places: Numbers | slice) -> Terms:
        """Some of them."""
        return Terms(*(getattr(self, column.name)[places] for column in fields(self)))

    def largest_first(self) -> Terms:
        """The same in order of their absolute values."""
        return self.take(np.argsort(-np.abs(self.value), kind="stable"))

    def group_by(self, source: Numbers, target: Numbers) -> Terms:
        """Sum the terms of one kind whose features are of the same groups.

        Args:
            source: the group of each feature of the source, from 0 on.
            target: of each feature of the target.
        """
        of_source = np.where(self.source < 0, -1, self.other)
        of_target = np.where(self.source < 0, self.other, -1)
        keys = (
            self.kind,
            _group(source, self.source),
            _group(target, self.target),
            np.maximum(_group(source, of_source), _group(target, of_target)),
        )
        shape = tuple(int(key.max(initial=-1)) + 2 for key in keys)
        cells = np.ravel_multi_index(tuple(key + 1 for key in keys), shape)
        cells, group = np.unique(cells, return_inverse=True)
        sums = np.zeros(len(cells))
        np.add.at(sums, group, self.value)
        kind, one, two, other = (key - 1 for key in np.unravel_index(cells, shape))
        return Terms(kind, one, two, other, sums)

    @classmethod
    def concat(cls, several: list[Terms]) -> Terms:
        """Put tables one after another."""
        columns = [[getattr(one, column.name) for one in several] for column in fields(cls)]
        return cls(*map(np.concatenate, columns))


def split_score(direction: Direction, source: ActiveFeatures, target: ActiveFeatures) -> Terms:
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
    pairs = fm_numpy.pair_terms(source.x, source.v, target.x, target.v)
    if direction.is_similarity:
        is_shared = np.equal.outer(source.rows, target.rows)
        kind = np.where(is_shared, KINDS.index("shared"), KINDS.index("similar"))
        lengths = [np.linalg.norm(end.vector()[1:]) for end in (source, target)]
        return _between(kind, pairs / (np.prod(lengths) or np.inf))  # a length of 0 has score 0
    kind = np.full(pairs.shape, KINDS.index("user_item"))
    return Terms.concat([*_within(item, is_source=item is source), _between(kind, pairs)])


def _between(kind: Numbers, value: Floats) -> Terms:
    """The terms of each feature of the source with each of the target, from matrices of them."""
    source, target = (places.ravel() for places in np.indices(value.shape))
    return Terms(kind.ravel(), source, target, np.full(value.size, -1), value.ravel())


def _within(item: ActiveFeatures, *, is_source: bool) -> list[Terms]:
    """The terms of an item alone: of each feature, and of each pair."""
    places = np.arange(len(item.rows))
    first, second = np.triu_indices(len(places), k=1)
    pairs = fm_numpy.pair_terms(item.x, item.left, item.x, item.right)[first, second]
    found = []
    for kind, one, other, value in (
        (
            "first_order",
            places,
            np.full_like(places, -1),
            fm_numpy.first_order_terms(item.x, item.w),
        ),
        ("item_pair", first, second, pairs),
    ):
        nothing = np.full_like(one, -1)
        ends = (one, nothing) if is_source else (nothing, one)
        found.append(Terms(np.full_like(one, KINDS.index(kind)), *ends, other, value))
    return found


def _group(groups: Numbers, places: Numbers) -> Numbers:
    """The groups of some features; -1 for none."""
    found: Numbers = np.append(groups, -1)[places]
    return found
