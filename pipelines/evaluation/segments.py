"""Figures of segments, which are some of the users and items, added up batch by batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pipelines.evaluation import metrics
from pipelines.evaluation.metrics import Flags, Floats, Rows
from pipelines.evaluation.ranking import rank_items
from pipelines.results import metric_names

Scores = NDArray[np.float32]

N_DECILES = 10


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The figures of a segment."""

    n_users: int
    """Users of the segment with at least one of its test items; every mean is over them."""
    n_items: int
    """Items of the segment: the whole corpus, or its warm or cold items."""
    n_positives: int
    """Test items of those users among the segment's items."""
    figures: Mapping[str, float]
    """By metric, such as `recall@20`; empty where `n_users` is 0. Coverage is the share of the
    segment's items that its users are recommended; popularity is of all they are recommended."""


@dataclass(frozen=True, kw_only=True)
class Decile:
    """Recall of the test items of one popularity decile."""

    n_items: int
    n_users: int
    """Users with a test item in the decile."""
    popularity: float
    """Mean number of train interactions of its items; 0 where it has no items."""
    recall: float | None
    """Mean over those users of the share found of their test items in the decile."""


def popularity_deciles(popularity: Rows) -> Rows:
    """Assign each item [n_items] its popularity decile, 0 (least popular) to 9.

    Each decile holds about a tenth of the train interactions, not of the items, so that the first
    is the long tail and the last a few favourites: the groups of SGL (Wu et al., 2021). Ties in
    popularity go by item row. A decile may be empty: one item may have over a tenth of them all.
    """
    order = np.argsort(popularity, kind="stable")
    ascending = popularity[order]
    before = np.cumsum(ascending) - ascending
    deciles = np.empty(len(popularity), dtype=np.int64)
    deciles[order] = before * N_DECILES // max(int(popularity.sum()), 1)
    return deciles


class SegmentTally:
    """Adds up the figures of one segment."""

    def __init__(
        self,
        test: scipy.sparse.csr_array,
        *,
        users: Flags,
        items: Flags,
        popularity: Rows,
        cutoffs: Iterable[int],
        keep: bool = False,
    ) -> None:
        """Start at zero.

        Args:
            test: [n_users, n_items] int64, 1 where the item is a test item of the user.
            users: [n_users], which users belong to the segment.
            items: [n_items], which items belong to the segment.
            popularity: [n_items], train interactions of each item.
            cutoffs: every K.
            keep: whether the figures of each user are kept, for `by_user`.
        """
        self._items = items
        self._kept: dict[str, list[Floats]] | None = defaultdict(list) if keep else None
        self._popularity = popularity
        self._n_relevant: Rows = np.where(users, test @ items.astype(np.int64), 0)
        self._sums: dict[str, float] = defaultdict(float)
        self._covered = {k: np.zeros(len(items), dtype=np.bool_) for k in cutoffs}

    def concerns(self, users: Rows) -> Rows:
        """Which of the `users` [batch] have test items of the segment: their places, ascending."""
        return np.flatnonzero(self._n_relevant[users] > 0)

    def rank_alone(
        self, scores: Scores, k: int, *, exclude: scipy.sparse.csr_array, places: Rows
    ) -> Rows:
        """List the best items of the segment of the users at some places [n] of a batch.

        Otherwise as `rank_items` does of all items.
        """
        rows = np.flatnonzero(self._items)
        kept = scipy.sparse.csr_array(exclude[places][:, rows])
        ranked = rank_items(scores[np.ix_(places, rows)], k, exclude=kept)
        return np.where(ranked >= 0, np.append(rows, -1)[ranked], -1)

    def add(self, users: Rows, ranked: Rows, found: Flags) -> None:
        """Count the lists `ranked` of `users` [batch]; `found` flags their test items."""
        inside = self._n_relevant[users] > 0
        if not inside.any():
            return
        ranked = ranked[inside]
        relevant = found[inside] & self._items[ranked]
        n_relevant = self._n_relevant[users[inside]]
        for k in self._covered:
            self._covered[k] |= metrics.covered(ranked, len(self._items), k=k)
            figures = metrics.per_user(
                ranked, relevant, n_relevant=n_relevant, popularity=self._popularity, k=k
            )
            for name, values in figures.items():
                self._sums[name] += float(values.sum())
                if self._kept is not None:
                    self._kept[name].append(values)

    @property
    def by_user(self) -> dict[str, Floats]:
        """The figures of each user that was counted, in their order, where they are kept."""
        return {name: np.concatenate(parts) for name, parts in (self._kept or {}).items()}

    def result(self) -> Segment:
        """The means over the users counted, in the order of `metric_names`."""
        n_users = int(np.count_nonzero(self._n_relevant))
        figures: dict[str, float] = {}
        if n_users:
            means = {name: total / n_users for name, total in self._sums.items()}
            shares = {
                f"coverage@{k}": float(covered[self._items].mean())
                for k, covered in self._covered.items()
            }
            every = means | shares
            figures = {name: every[name] for name in metric_names(self._covered)}
        return Segment(
            n_users=n_users,
            n_items=int(np.count_nonzero(self._items)),
            n_positives=int(self._n_relevant.sum()),
            figures=figures,
        )


class DecileTally:
    """Adds up recall@k by popularity decile of the test items."""

    def __init__(self, test: scipy.sparse.csr_array, *, popularity: Rows, k: int) -> None:
        """Start at zero; for `test` and `popularity` see `SegmentTally`."""
        self.k = k
        self._popularity = popularity
        self._deciles = popularity_deciles(popularity)
        member = np.eye(N_DECILES, dtype=np.int64)[self._deciles]
        self._n_relevant: Rows = test @ member
        self._recall: Floats = np.zeros(N_DECILES)

    def add(self, users: Rows, ranked: Rows, found: Flags) -> None:
        """Count the lists `ranked` of `users` [batch]; `found` flags their test items."""
        row, rank = np.nonzero(found[:, : self.k])
        cell = row * N_DECILES + self._deciles[ranked[row, rank]]
        hits = np.bincount(cell, minlength=len(users) * N_DECILES).reshape(-1, N_DECILES)
        self._recall += (hits / np.maximum(self._n_relevant[users], 1)).sum(axis=0)

    def result(self) -> tuple[Decile, ...]:
        """The ten deciles, from the least popular items to the most popular."""
        n_items = np.bincount(self._deciles, minlength=N_DECILES)
        n_users = np.count_nonzero(self._n_relevant, axis=0)
        interactions = np.bincount(self._deciles, self._popularity, minlength=N_DECILES)
        return tuple(
            Decile(
                n_items=int(n_items[d]),
                n_users=int(n_users[d]),
                popularity=float(interactions[d] / max(n_items[d], 1)),
                recall=float(self._recall[d] / n_users[d]) if n_users[d] else None,
            )
            for d in range(N_DECILES)
        )
