"""Answer a batch of a table: the candidates of its users, or the audiences of its items.

The answer to a batch depends on that batch alone, so that processes can share the batches of a
table in any way: each opens the version once, and then answers batch after batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.candidates.channels import Channels, Users, item_counts
from pipelines.candidates.diversify import merge_diverse
from pipelines.candidates.merge import Merged, depth_of, merge
from pipelines.candidates.rank_merged import rank_merged
from pipelines.candidates.settings import CandidateSettings
from pipelines.candidates.sources import SourceReader, Sources
from serving.retrieval.diversity import Diversity
from serving.retrieval.parts import Parts
from serving.search.index import STRIDE, Pairs, Rows, no_pairs, number_pairs, search_without
from towers.directions import DIRECTIONS


@dataclass(frozen=True, eq=False)
class Answered:
    """The answer to a batch, and the rows of the batch that have none."""

    table: pa.Table
    """The rows of the answer."""
    rejected: pa.Table
    """`row` (the place in the batch), `id` and `reason` of the rows that have no answer."""


class CandidateTable:
    """Answers users with their candidates."""

    def __init__(self, parts: Parts, settings: CandidateSettings, *, schema: pa.Schema) -> None:
        """Answer tables of one schema.

        Raises:
            ConfigError: there is no column of ids.
            DataError: a column's type cannot be its feature's.
            QueryError: the filter is none, or does not fit the items; or they lack a column. Or the
                version has no ranker, and is to rank.
        """
        self._parts, self._settings, self._plan = parts, settings, settings.plan
        if settings.rank:
            _ = parts.ranker
        self._read = SourceReader(
            parts, "user", schema=schema, prefer_features=settings.prefer_features
        )
        self._channels = Channels(parts, settings)
        parts.catalogue("item").show(np.empty(0, dtype=np.int64), list(settings.max_per))
        self._ids = parts.items.ids.values
        self._names = pa.array([channel.name for channel in self._plan])
        self._by_rarity: Rows | None = None
        self.columns = self._read.columns
        """The columns of a batch."""
        self.schema = pa.schema(
            {
                "user_id": parts.users.ids.values.type,
                "item_id": self._ids.type,
                "score": pa.float32(),
                "rank": pa.int32(),
                "channel": pa.dictionary(pa.int8(), pa.string()),
                "version": pa.int64(),
            }
        )
        """The columns of an answer."""

    def __call__(self, table: pa.Table) -> Answered:
        """List the candidates of a batch's users, in order of users and ranks.

        Raises:
            DataError: a column is of a type that its feature cannot have.
        """
        sources = self._read(table)
        users = self._users(sources)
        merged = self._merge(users)
        if self._settings.rank:
            merged = rank_merged(self._parts, sources, merged)
        channels = pa.DictionaryArray.from_arrays(pa.array(merged.channels), self._names)
        version = np.full(len(merged.rows), self._parts.bundle.version)
        columns = [
            _take(pa.array(sources.ids, self.schema.field("user_id").type), merged.places),
            _take(self._ids, merged.rows),
            pa.array(merged.scores),
            pa.array(merged.ranks),
            channels,
            pa.array(version),
        ]
        return Answered(pa.Table.from_arrays(columns, schema=self.schema), sources.rejected)

    def _merge(self, users: Users) -> Merged:
        """Choose what each user gets."""
        settings = self._settings
        diversity = Diversity.of(settings.max_per, settings.diversity)
        if diversity is not None and users.size:
            items = self._parts.catalogue("item")
            return merge_diverse(
                self._channels, users, items, settings=settings, diversity=diversity
            )
        depths = [depth_of(self._plan, i, k=settings.k) for i in range(len(self._plan))]
        lists = [
            self._channels.list(channel.name, users, depth)
            for channel, depth in zip(self._plan, depths, strict=True)
        ]
        return merge(self._plan, lists, k=settings.k)

    def _users(self, sources: Sources) -> Users:
        """What the channels need to know about the users."""
        unwanted = latest = no_pairs()
        has_i2i = any(channel.name == "i2i" for channel in self._plan)
        if has_i2i or self._settings.exclude_seen:
            given = sources.seen
            if has_i2i:
                latest = self._latest(sources, self._parts.seen.chosen("user", sources.rows))
            if self._settings.exclude_seen:
                seen = self._parts.seen.pairs("user", sources.rows)
                both = np.append(seen[0], given[0]), np.append(seen[1], given[1])
                keys = number_pairs(both)
                unwanted = keys // STRIDE, keys % STRIDE
        return Users(rows=sources.rows, vectors=sources.vectors, unwanted=unwanted, latest=latest)

    def _latest(self, sources: Sources, chosen: Pairs) -> Pairs:
        """The items that i2i starts from: see `CandidateSettings.latest`."""
        places, rows = sources.histories
        has_history = np.zeros(sources.size, dtype=np.bool_)
        has_history[places] = True
        from_training = ~has_history[chosen[0]]
        given = _last_of(places, rows, order=np.arange(len(rows)), count=self._settings.latest)
        if not from_training.any():
            return given
        if self._by_rarity is None:
            self._by_rarity = item_counts(self._parts)
        known = chosen[0][from_training], chosen[1][from_training]
        rarest = _last_of(*known, order=-self._by_rarity[known[1]], count=self._settings.latest)
        return np.append(given[0], rarest[0]), np.append(given[1], rarest[1])


class AudienceTable:
    """Answers items with the users that they match best."""

    def __init__(self, parts: Parts, settings: CandidateSettings, *, schema: pa.Schema) -> None:
        """Answer tables of one schema.

        Raises:
            ConfigError: there is no column of ids.
            DataError: a column's type cannot be its feature's.
        """
        self._parts, self._settings = parts, settings
        self._read = SourceReader(
            parts, "item", schema=schema, prefer_features=settings.prefer_features
        )
        self._ids = parts.users.ids.values
        self.columns = self._read.columns
        """The columns of a batch."""
        self.schema = pa.schema(
            {
                "item_id": parts.items.ids.values.type,
                "user_id": self._ids.type,
                "score": pa.float32(),
                "rank": pa.int32(),
                "version": pa.int64(),
            }
        )
        """The columns of an answer."""

    def __call__(self, table: pa.Table) -> Answered:
        """List the audiences of a batch's items, in order of items and ranks.

        Raises:
            DataError: a column is of a type that its feature cannot have.
        """
        sources = self._read(table)
        direction, index = DIRECTIONS["i2u"], self._parts.index("i2u")
        unwanted = no_pairs()
        if self._settings.exclude_seen:
            unwanted = self._parts.seen.pairs("item", sources.rows)
        found, scores = search_without(
            index,
            direction.project(sources.vectors),
            k=np.full(sources.size, self._settings.audience_k),
            width=self._settings.audience_k,
            unwanted=unwanted,
        )
        scores = scores + direction.offset(sources.vectors)[:, np.newaxis]
        places, columns = np.nonzero(found >= 0)
        answer = [
            _take(pa.array(sources.ids, self.schema.field("item_id").type), places),
            _take(self._ids, found[places, columns]),
            pa.array(scores[places, columns]),
            pa.array((columns + 1).astype(np.int32)),
            pa.array(np.full(len(places), self._parts.bundle.version)),
        ]
        return Answered(pa.Table.from_arrays(answer, schema=self.schema), sources.rejected)


def _take(values: pa.Array, places: Rows) -> pa.Array:
    """The values at some places; integers are taken by NumPy, which is faster."""
    if pa.types.is_integer(values.type):
        return pa.array(values.to_numpy()[places])
    return values.take(pa.array(places))


def _last_of(places: Rows, rows: Rows, *, order: NDArray[Any], count: int) -> Pairs:
    """The last `count` distinct rows of each place by an order; of ties, the highest rows."""
    by_order = np.lexsort((rows, order, places))[::-1]
    keys = places[by_order] * STRIDE + rows[by_order]
    kept = by_order[np.sort(np.unique(keys, return_index=True)[1])]
    counts = np.bincount(places[kept], minlength=int(places.max(initial=-1)) + 1)[::-1]
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    kept = kept[np.arange(len(kept)) - starts < count]
    return places[kept], rows[kept]
