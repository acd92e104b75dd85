"""The sources of candidates, called channels: what each lists for a batch of users.

| channel | lists | by |
|---|---|---|
| u2i | items that match the user | the match score |
| i2i | items like the user's latest | the highest cosine to one of them |
| u2u2i | items of similar users | the sum of the cosines, if above 0, of those that have it |
| popularity | items that most users have | the number of users in training |
| recent | items that most users chose of late | the number of users within the latest window |

Of equal scores, the lower row comes first, except where ScaNN decides. A channel lists no item that
is excluded for the user, was removed, or does not match the filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pipelines.candidates.settings import CandidateSettings, ChannelName
from serving.retrieval.parts import Parts
from serving.search.best_columns import best_columns
from serving.search.filtered import search_among
from serving.search.filters import parse_filter
from serving.search.index import STRIDE, Found, Pairs, Rows, Vectors, contains, search_without
from towers.directions import DIRECTIONS
from towers.errors import QueryError

LARGEST_WORK = 2**21
"""Pairs of a user and an item that are in memory at once; it limits how many users are."""


@dataclass(frozen=True, eq=False)
class Users:
    """A batch of n users."""

    rows: Rows
    """[n] rows of the users; -1 for those that the version does not know."""
    vectors: Vectors
    """[n, 1 + d]."""
    unwanted: Pairs
    """Excluded items as pairs of a user's place and an item row: sorted, without duplicates."""
    latest: Pairs
    """The items that i2i starts from, as pairs of a user's place and an item row."""

    @property
    def size(self) -> int:
        """The number of users, n."""
        return len(self.rows)

    def take(self, places: Rows) -> Users:
        """Some of them, ascending."""
        unwanted, latest = (
            (np.searchsorted(places, pairs[0][inside]), pairs[1][inside])
            for pairs in (self.unwanted, self.latest)
            for inside in [np.isin(pairs[0], places)]
        )
        return Users(self.rows[places], self.vectors[places], unwanted, latest)


class Popular:
    """An index that gives every query the same rows, in a fixed order."""

    def __init__(self, rows: Rows, scores: NDArray[np.float32]) -> None:
        """List `rows` [size] with their scores, best first."""
        self._rows, self._scores = rows, scores

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def search(self, queries: Vectors, k: int) -> Found:
        """List the first min(k, size); see `Index.search`."""
        shape = (len(queries), min(k, self.size))
        return np.broadcast_to(self._rows[:k], shape), np.broadcast_to(self._scores[:k], shape)


class Channels:
    """The channels of one version."""

    def __init__(self, parts: Parts, settings: CandidateSettings) -> None:
        """Take a version, and which of its items may be candidates.

        Raises:
            QueryError: the filter is none, or does not fit the items.
        """
        self._parts, self._settings = parts, settings
        self._items = parts.catalogue("item")
        self._matching: Rows | None = None
        if settings.where is not None:
            where = parse_filter(settings.where)
            self._items.check_filter(where)
            self._matching = self._items.matching(where)
            if not len(self._matching):
                raise QueryError("where: expected a filter that some item matches, none does")

    def list(self, name: ChannelName, users: Users, depth: int) -> Found:
        """The `depth` best items of a channel for each user: rows and scores [n, depth], padded."""
        how = {
            "u2i": self.u2i,
            "i2i": self.i2i,
            "u2u2i": self.u2u2i,
            "popularity": self.popularity,
            "recent": self.recent,
        }
        return how[name](users, depth)

    def u2i(self, users: Users, depth: int) -> Found:
        """Items that match the user."""
        return self._search("u2i", users.vectors, depth=depth, unwanted=users.unwanted)

    def i2i(self, users: Users, depth: int) -> Found:
        """Items like the user's latest; each by its highest cosine to one of them."""
        places, sources = users.latest
        counts = np.bincount(users.unwanted[0], minlength=users.size)
        n_latest = np.bincount(places, minlength=users.size)
        found = []
        for start, stop in _cut(n_latest * (counts + depth + 1)):
            inside = (places >= start) & (places < stop)
            mine, items = places[inside], sources[inside]
            starts = np.cumsum(counts) - counts
            pairs = _repeat(users.unwanted[1], starts[mine], counts[mine])
            own = np.arange(len(mine))
            unwanted = np.append(pairs[0], own), np.append(pairs[1], items)
            vectors = self._items.vectors[items]
            rows, scores = self._search("i2i", vectors, depth=depth, unwanted=unwanted)
            fits = rows >= 0
            flat = np.repeat(mine - start, fits.sum(axis=1)), rows[fits], scores[fits]
            found.append(best_of(*flat, size=stop - start, depth=depth))
        return _stack(found, depth=depth)

    def u2u2i(self, users: Users, depth: int) -> Found:
        """Items of similar users, by the sum of their similarities."""
        neighbours = self._neighbours(users)
        seen = self._seen_counts
        n_items = np.append(np.diff(seen.indptr), 0)
        work = np.bincount(
            np.repeat(np.arange(users.size), np.diff(neighbours.indptr)),
            weights=n_items[neighbours.indices],
            minlength=users.size,
        )
        keys = users.unwanted[0] * STRIDE + users.unwanted[1]
        found = []
        for start, stop in _cut(work.astype(np.int64)):
            counted = (neighbours[start:stop] @ seen).tocoo()
            places, rows = (x.astype(np.int64) for x in counted.coords)
            fits = self._findable[rows] & ~contains(keys, (places + start) * STRIDE + rows)
            flat = places[fits], rows[fits], counted.data[fits]
            found.append(best_of(*flat, size=stop - start, depth=depth))
        return _stack(found, depth=depth)

    def popularity(self, users: Users, depth: int) -> Found:
        """Items that most users have."""
        return self._most_chosen(self._popular, users, depth)

    def recent(self, users: Users, depth: int) -> Found:
        """Items that most users chose of late."""
        return self._most_chosen(self._recent, users, depth)

    def _most_chosen(self, index: Popular, users: Users, depth: int) -> Found:
        """The first items of an order that is the same for all."""
        queries = np.empty((users.size, 0), dtype=np.float32)
        k = np.full(users.size, depth)
        found = search_without(index, queries, k=k, width=depth, unwanted=users.unwanted)
        return _widen(found, depth)

    def _search(self, direction: str, vectors: Vectors, *, depth: int, unwanted: Pairs) -> Found:
        """The `depth` best candidates of each query, among the items that the filter leaves."""
        chosen, index = DIRECTIONS[direction], self._parts.index(direction)
        queries = chosen.project(vectors)
        k = np.full(len(queries), depth)
        if self._matching is None:
            found = search_without(index, queries, k=k, width=depth, unwanted=unwanted)
        else:
            found = search_among(
                index,
                chosen,
                self._items.vectors,
                queries,
                k=k,
                width=depth,
                matching=self._matching,
                unwanted=unwanted,
            )
        return _widen(found, depth)

    def _neighbours(self, users: Users) -> scipy.sparse.csr_array:
        """The cosines [n, n_users in training] to the nearest users; 0 for all others."""
        known = np.flatnonzero(users.rows >= 0)
        queries = DIRECTIONS["u2u"].project(users.vectors)
        width = self._settings.neighbours
        rows, scores = search_without(
            self._parts.index("u2u"),
            queries,
            k=np.full(users.size, width),
            width=width,
            unwanted=(known, users.rows[known]),
        )
        fits = (rows >= 0) & (scores > 0)
        starts = np.append(0, np.cumsum(fits.sum(axis=1)))
        shape = (users.size, self._seen_counts.shape[0])
        return scipy.sparse.csr_array((scores[fits], rows[fits], starts), shape=shape)

    @cached_property
    def _seen_counts(self) -> scipy.sparse.csr_array:
        """Which items each user has, as float32."""
        return self._parts.seen.matrix.astype(np.float32)

    @cached_property
    def _findable(self) -> NDArray[np.bool_]:
        """Which items may be candidates."""
        if self._matching is None:
            return self._items.is_present
        found = np.zeros(self._items.size, dtype=np.bool_)
        found[self._matching] = True
        return found

    @cached_property
    def _popular(self) -> Popular:
        """Every item that may be a candidate, those that most users have first."""
        return self._in_order(item_counts(self._parts))

    @cached_property
    def _recent(self) -> Popular:
        """Every item that may be a candidate, those first that most users chose of late."""
        return self._in_order(self._parts.recent.counts)

    def _in_order(self, counts: NDArray[np.int64]) -> Popular:
        rows = np.flatnonzero(self._findable)
        order = rows[np.argsort(-counts[rows], kind="stable")]
        return Popular(order, counts[order].astype(np.float32))


def item_counts(parts: Parts) -> NDArray[np.int64]:
    """How many users have each item in training."""
    matrix = parts.seen.matrix
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def best_of(
    places: NDArray[np.int64],
    rows: Rows,
    scores: NDArray[np.float32],
    *,
    size: int,
    depth: int,
) -> Found:
    """List each user's best rows; a row that is listed more than once has its highest score.

    Args:
        places: [m] the users, in any order.
        rows: [m] what is listed for them.
        scores: [m].
        size: how many users, n.
        depth: how many rows at most.

    Returns:
        [n, depth] rows and scores, ties to the lower row; -1 and -inf pad.
    """
    if not len(places):
        return _widen((np.empty((size, 0), np.int64), np.empty((size, 0), np.float32)), depth)
    keys = places * STRIDE + rows
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    highest = np.maximum.reduceat(scores[order], firsts)
    places, rows = keys[firsts] // STRIDE, keys[firsts] % STRIDE
    counts = np.bincount(places, minlength=size)
    columns = np.arange(len(places)) - (np.cumsum(counts) - counts)[places]
    shape = (size, int(counts.max()))
    listed = np.full(shape, -1, dtype=np.int64)
    values = np.full(shape, -np.inf, dtype=np.float32)
    listed[places, columns], values[places, columns] = rows, highest
    chosen, best = best_columns(values, depth)
    found = np.where(chosen < 0, -1, np.take_along_axis(listed, np.maximum(chosen, 0), axis=1))
    return _widen((found, best), depth)


def _cut(work: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut users into stretches, in which each may have as many pairs as the one with the most."""
    start, most = 0, 0
    for place, size in enumerate(work.tolist()):
        most = max(most, size)
        if start < place and most * (place + 1 - start) > LARGEST_WORK:
            yield start, place
            start, most = place, size
    if len(work):
        yield start, len(work)


def _repeat(values: Rows, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> Pairs:
    """Stretches of `values` one after another, and the number of the stretch of each."""
    owners = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, values[starts[owners] + offset]


def _stack(found: list[Found], *, depth: int) -> Found:
    """The lists of all users."""
    if not found:
        return np.empty((0, depth), dtype=np.int64), np.empty((0, depth), dtype=np.float32)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([s for _, s in found])


def _widen(found: Found, width: int) -> Found:
    """Pad lists that are narrower, because the index has fewer vectors."""
    rows, scores = found
    lacking = ((0, 0), (0, width - rows.shape[1]))
    if not lacking[1][1]:
        return found
    return (
        np.pad(rows, lacking, constant_values=-1),
        np.pad(scores, lacking, constant_values=-np.inf),
    )
