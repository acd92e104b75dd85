"""An index of shells that answers, and changes while it does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serving.search.equal_vectors import LivePlaces
from serving.search.growing_array import RowNumbers
from serving.search.index import Found, Rows, Vectors, check_queries
from serving.search.live_index import LiveIndex, LiveScannIndex
from serving.search.scann_index import ScannSettings, search_all_if_short
from serving.search.shells import Shell, Shells

ROUNDING = 1e-5
"""How far a product of lengths may be off, as a share of it."""

SHORTEST = np.finfo(np.float32).tiny
"""For this long a query of length 0 is taken."""


def open_shells(index: Shells) -> LiveIndex:
    """Search by an index that was built or loaded, which nobody else may change."""
    live = LiveShells(index.shells)
    return live if index.places is None else LivePlaces(live, index.places)


class LiveShells:
    """Searches one shell after another, the longest vectors first.

    A shell is passed over for a query where even its longest vector cannot reach the k-th score
    that was found: no inner product is above the product of the two lengths.
    """

    def __init__(self, shells: tuple[Shell, ...]) -> None:
        """Take over `shells`."""
        self._shells = [LiveScannIndex(shell.index, shell.rows) for shell in shells]
        self._longest = np.array([shell.longest for shell in shells], dtype=np.float32)
        self._width = shells[0].index.width
        self._built_from = shells
        self._home: RowNumbers | None = None
        """The shell of each row, -1 for a row that is not there; made when it is first needed."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return sum(shell.size for shell in self._shells)

    @property
    def settings(self) -> tuple[ScannSettings, ...]:
        """How each shell was built, and how much of it is searched."""
        return tuple(shell.settings for shell in self._shells)

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`.

        Where the leaves that the settings name have fewer than k vectors, all leaves are searched.
        """
        return search_all_if_short(self.search_once, queries, k)

    def search_once(self, queries: Vectors, k: int, *, all_leaves: bool = False) -> Found:
        """Search the leaves that the settings name, or all; -1 and -inf where they end."""
        check_queries(queries, k, width=self._width)
        k = min(k, self.size)
        if len(self._shells) == 1:
            return self._shells[0].search_checked(queries, k, all_leaves=all_leaves)
        found = list(self._each_shell(queries, k, all_leaves=all_leaves))
        if len(found) == 1:
            return found[0]
        rows, scores = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        # a stable sort is fast on lists that are sorted already
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        if len(order) == 1:  # which takes a third of the time of a batch of one
            return rows[:, order[0]], scores[:, order[0]]
        # by flat places, which takes two thirds of the time of taking along an axis
        places = order + rows.shape[1] * np.arange(len(rows))[:, np.newaxis]
        return rows.ravel().take(places), scores.ravel().take(places)

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """See `LiveIndex.put`."""
        lengths = np.linalg.norm(vectors, axis=1)
        # each row goes to the last shell whose longest vector is not shorter, or to the first
        target = np.searchsorted(-self._longest, -lengths, side="right") - 1
        target = np.maximum(target, 0)
        home = self._homes()
        before = home.of(rows)
        for number, shell in enumerate(self._shells):
            shell.remove(rows[(before == number) & (target != number)])
            mine = target == number
            shell.put(rows[mine], vectors[mine])
        self._longest[0] = max(self._longest[0], lengths.max(initial=0.0))
        home.put(rows, target)

    def remove(self, rows: Rows) -> None:
        """See `LiveIndex.remove`."""
        home = self._homes()
        before = home.of(rows)
        for number, shell in enumerate(self._shells):
            shell.remove(rows[before == number])
        home.put(rows[before >= 0], -1)

    def _each_shell(self, queries: Vectors, k: int, *, all_leaves: bool) -> Iterator[Found]:
        """What each shell has for the queries that need it; -1 and -inf for the others.

        Nothing of a shell that no query needs, but of one at least.
        """
        # a query of length 0 can reach 0, also in a shell whose longest vector is not known
        lengths = np.maximum(np.linalg.norm(queries, axis=1) * (1 + ROUNDING), SHORTEST)
        kth: NDArray[np.float32] = np.full(len(queries), -np.inf, dtype=np.float32)
        for number, (shell, longest) in enumerate(zip(self._shells, self._longest, strict=True)):
            asked = longest * lengths >= kth
            width = min(k, shell.size)
            if asked.all():
                rows, scores = shell.search_checked(queries, width, all_leaves=all_leaves)
            elif asked.any() or not number:
                rows = np.full((len(queries), width), -1, dtype=np.int64)
                scores = np.full(rows.shape, -np.inf, dtype=np.float32)
                some = shell.search_checked(queries[asked], width, all_leaves=all_leaves)
                rows[asked], scores[asked] = some
            else:
                continue
            if 0 < width == k:
                kth = np.maximum(kth, scores[:, -1])
            yield rows, scores

    def _homes(self) -> RowNumbers:
        """The shell of each row."""
        if self._home is None:
            self._home = RowNumbers(np.empty(0, dtype=np.int64))
            for number, shell in enumerate(self._built_from):
                self._home.put(shell.rows, number)
        return self._home
