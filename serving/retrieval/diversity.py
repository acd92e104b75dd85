"""Diversity: answers with few targets of a kind, and with targets that are unlike each other.

Both choose among the best targets, and leave those that are chosen in order of their scores.

- **Caps.** In order of their scores, targets are taken but for those of which a value, such as the
  brand, was taken as often as its cap says. A list counts with each of its values; a missing value
  is not capped.
- **Maximal marginal relevance.** One after another, the target t is taken with the highest
  (1 - weight) relevance(t) - weight max_s similarity(t, s), over those s taken before; relevances
  are scores from 0, the least, to 1, the best of those searched, and similarities are the cosines
  that i2i and u2u rank by. Source: J. Carbonell and J. Goldstein, SIGIR 1998.

What is searched are 4 k targets, and four times as many again until k are found that the caps allow
or no more are left: an answer is never shorter than it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.retrieval.catalogue import Catalogue
from serving.search.index import Found, Rows, Vectors
from towers.directions import DIRECTIONS, Direction
from towers.errors import QueryError

DEEPER = 4
"""How many times k targets are searched at first, and how many times more each time after."""

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How unlike each other the targets of an answer are to be."""

    max_per: Mapping[str, int] = field(default_factory=dict)
    """By a column of the targets' table, how many targets may have the same value at most."""
    weight: float = 0.0
    """How much unlikeness counts beside relevance, from 0, not at all, to 1."""

    @classmethod
    def of(cls, max_per: Mapping[str, int] | None, weight: float) -> Diversity | None:
        """What is asked for; None for nothing.

        Raises:
            QueryError: a cap is below 1, or the weight is not between 0 and 1.
        """
        for column, cap in (max_per or {}).items():
            if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
                raise QueryError(f"max_per: {column}: expected at least 1, received {cap!r}")
        if not 0.0 <= weight <= 1.0:
            raise QueryError(f"diversity: expected a number from 0 to 1, received {weight!r}")
        return cls(max_per=max_per or {}, weight=weight) if max_per or weight else None


@dataclass(frozen=True, eq=False)
class Capped:
    """A column of which each value may be taken so often."""

    codes: Codes
    """[n, m] a number for each value of each row, from 0 on; -1 pads."""
    cap: int

    @classmethod
    def of(cls, values: Sequence[Any], cap: int) -> Capped:
        """Number the values of a column; a cell may hold a list of them."""
        numbers: dict[Any, int] = {}
        rows: list[list[int]] = []
        for cell in values:
            given = cell if isinstance(cell, list | np.ndarray) else [cell]
            known = dict.fromkeys(value for value in given if not pd.isna(value))
            rows.append([numbers.setdefault(value, len(numbers)) for value in known])
        codes = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
        for place, found in enumerate(rows):
            codes[place, : len(found)] = found
        return cls(codes, cap)


class Room:
    """Which of n targets the caps still allow."""

    def __init__(self, columns: Sequence[Capped], *, size: int) -> None:
        """Start with none of `size` targets taken."""
        self._columns, self._size = columns, size
        self._codes: list[list[list[int]]] = [one.codes.tolist() for one in columns]
        self._counts = [[0] * (int(one.codes.max(initial=-1)) + 2) for one in columns]

    def allows(self, place: int) -> bool:
        """Whether a target may be taken."""
        return not any(
            code >= 0 and counts[code] >= one.cap
            for one, codes, counts in zip(self._columns, self._codes, self._counts, strict=True)
            for code in codes[place]
        )

    def allowed(self) -> NDArray[np.bool_]:
        """Which targets may be taken, [n]."""
        found = np.ones(self._size, dtype=np.bool_)
        for one, counts in zip(self._columns, self._counts, strict=True):
            is_full = np.array(counts) >= one.cap
            is_full[-1] = False  # it counts what pads
            found &= ~is_full[one.codes].any(axis=1)
        return found

    def take(self, place: int) -> None:
        """Take one."""
        for codes, counts in zip(self._codes, self._counts, strict=True):
            for code in codes[place]:
                counts[code] += 1


def choose(
    places: Rows,
    scores: Vectors,
    *,
    unit: Vectors,
    room: Room,
    taken: list[int],
    k: int,
    weight: float,
) -> list[int]:
    """Choose at most k of some targets; see the module.

    Args:
        places: theirs among all n, [m]; none was taken before.
        scores: [m], best first.
        unit: the pooled vectors of all, of length 1, [n, d]; only looked at with a weight.
        room: what the caps allow, which is taken from.
        taken: the places of those that were taken before.
        k: how many.
        weight: how much unlikeness counts.

    Returns:
        What is taken, in order.
    """
    if not weight:
        return _choose_first(places, room, k=k)
    chosen: list[int] = []
    relevance = _from_0_to_1(scores)
    closest = np.zeros(len(places), dtype=np.float32)
    if taken:
        closest = (unit[places] @ unit[taken].T).max(axis=1)
    left = np.ones(len(places), dtype=np.bool_)
    while len(chosen) < k and (open_ := left & room.allowed()[places]).any():
        value = (1.0 - weight) * relevance - weight * closest
        best = int(np.argmax(np.where(open_, value, -np.inf)))
        likeness = unit[places] @ unit[places[best]]
        closest = np.maximum(closest, likeness) if chosen or taken else likeness
        left[best] = False
        chosen.append(int(places[best]))
        room.take(chosen[-1])
    return chosen


def _choose_first(places: Rows, room: Room, *, k: int) -> list[int]:
    """Take the first k that the caps allow."""
    chosen: list[int] = []
    for place in places.tolist():
        if len(chosen) == k:
            break
        if room.allows(place):
            room.take(place)
            chosen.append(place)
    return chosen


def _from_0_to_1(scores: Vectors) -> Vectors:
    """Scores, best first, between 0 and 1."""
    spread = scores[:1] - scores[-1:]
    return np.asarray((scores - scores[-1:]) / np.where(spread > 0, spread, 1), dtype=np.float32)


def search_diverse(
    search: Callable[[Rows, Rows], Found],
    targets: Catalogue,
    direction: Direction,
    *,
    diversity: Diversity,
    k: Rows,
    width: int,
    least: Vectors,
) -> Found:
    """Find for each of n queries k targets that are unlike each other.

    Args:
        search: finds, for some of the queries (their numbers, ascending), as many of the best
            targets as is said for each.
        targets: the catalogue of the targets.
        direction: whose targets they are.
        diversity: what is asked for.
        k: [n] how many targets, each query's own.
        width: the columns of the answer.
        least: [n] the least score of a target.

    Returns:
        Rows [n, width] and scores, best first; -1 and -inf pad.
    """
    rows = np.full((len(k), width), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    likeness = DIRECTIONS[f"{direction.name[-1]}2{direction.name[-1]}"]
    short, depth = np.flatnonzero(k > 0), DEEPER * k
    while len(short):
        found, their_scores = search(short, depth[short])
        kept = (found >= 0) & (their_scores >= least[short, np.newaxis])
        every, at = np.unique(found[kept], return_inverse=True)
        places = np.full(found.shape, -1, dtype=np.int64)
        places[kept] = at
        columns = capped_columns(targets, every, diversity.max_per)
        unit = likeness.project(targets.vectors[every])
        left = []
        for query, of_query, scored in zip(short.tolist(), places, their_scores, strict=True):
            its, values = of_query[of_query >= 0], scored[of_query >= 0]
            own = [Capped(one.codes[its], one.cap) for one in columns]
            picked = np.sort(
                choose(
                    np.arange(len(its)),
                    values,
                    unit=unit[its] if diversity.weight else unit,
                    room=Room(own, size=len(its)),
                    taken=[],
                    k=int(k[query]),
                    weight=diversity.weight,
                )
            ).astype(np.int64)
            if len(picked) < k[query] and len(its) == depth[query]:
                left.append(query)
                continue
            rows[query, : len(picked)] = every[its[picked]]
            scores[query, : len(picked)] = values[picked]
        short, depth = np.array(left, dtype=np.int64), DEEPER * depth
    return rows, scores


def capped_columns(targets: Catalogue, rows: Rows, max_per: Mapping[str, int]) -> list[Capped]:
    """The values of some targets, by row, in the columns that are capped."""
    if not max_per:
        return []
    table = targets.show(rows, list(max_per))
    return [Capped.of(table[column].tolist(), cap) for column, cap in max_per.items()]
