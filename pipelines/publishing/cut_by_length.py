"""Cut vectors by length into shells, where few of them are what most queries look for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.search.index import Rows, Vectors
from serving.search.scann_index import FEWEST_FOR_TREE

LONGEST = 0.02
"""The share of the vectors that are the longest."""

ALIKE = 1.3
"""Vectors are not cut where the longest is at most so many times the median."""

NEEDED = 0.99
"""The shortest vectors are cut off that have less than the rest of the neighbours, ..."""

FEWEST_SHORT = 1 / 3
"""... where they are at least this share of all."""


def cut_by_length(lengths: Vectors, neighbours: Rows) -> Sequence[Rows]:
    """Cut vectors of these lengths [n] into shells, the longest first; rows by length.

    The longest are apart. So are the shortest, where they are many and hardly ever neighbours: the
    leaves and the codes of the others are not made for them then.

    Args:
        lengths: [n].
        neighbours: the rows that some queries look for, of any shape.
    """
    n, order = len(lengths), np.argsort(-lengths, kind="stable")
    if n < FEWEST_FOR_TREE or lengths[order[0]] <= ALIKE * lengths[order[n // 2]]:
        return [order]
    found = np.cumsum(np.bincount(neighbours.ravel(), minlength=n)[order])
    longest = round(LONGEST * n)
    needed = max(int(np.searchsorted(found, NEEDED * found[-1])) + 1, longest)
    is_long_tail = n - needed >= FEWEST_SHORT * n
    return np.split(order, sorted({longest, needed} if is_long_tail else {longest}))
