"""Retriever: answers queries in four directions from one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.bundle import Bundle
from serving.directions import DIRECTIONS, Direction
from serving.embeddings import Embeddings
from serving.index import ExactIndex, Index, Rows, Vectors, search_without
from serving.index_record import IndexRecord
from serving.manifest import MANIFEST
from serving.scann_index import ScannIndex
from serving.seen import Seen
from serving.store import Store, open_bundle
from serving.tower import Tower
from towers.errors import QueryError
from towers.schema import History, Side

NOTHING: Rows = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Hits:
    """What was found for n queries, best first; `""` (the smallest int64), -inf and -1 pad."""

    ids: NDArray[Any]
    """[n, k] int64 or str objects."""
    scores: NDArray[np.float32]
    """[n, k]."""
    rows: NDArray[np.int64]
    """[n, k] rows of the target's table."""


@dataclass(frozen=True, eq=False)
class _Sources:
    """The n users or items that are asked about."""

    vectors: Vectors
    """[n, 1 + d]."""
    rows: Rows
    """[n], -1 for those that the version does not know."""
    histories: Rows
    """[n, m] items of the histories given as features, -1 for unknown ones."""


class Retriever:
    """One version. Each part of it is read when it is first needed."""

    def __init__(self, bundle: Bundle) -> None:
        """Answer from `bundle`."""
        self.bundle = bundle
        self._index = cache(self._open_index)
        self._tower = cache(self._open_tower)

    @classmethod
    def open(cls, path: str | Path, *, version: int | None = None) -> Retriever:
        """Open the current version of a models directory, or another; or one bundle by its folder.

        Raises:
            BundleError: there is no such version, or it is damaged.
        """
        path = Path(path)
        return cls(open_bundle(path) if version is None else Store(path).open(version))

    @cached_property
    def users(self) -> Embeddings:
        """All users."""
        return Embeddings.read(self.bundle.users)

    @cached_property
    def items(self) -> Embeddings:
        """All items."""
        return Embeddings.read(self.bundle.items)

    @cached_property
    def seen(self) -> Seen:
        """The training positives."""
        shape = (len(self.users.vectors), len(self.items.vectors))
        return Seen.read(self.bundle.seen, shape=shape)

    def retrieve(
        self,
        direction: str,
        *,
        id: int | str | None = None,
        features: Mapping[str, Any] | None = None,
        k: int = 10,
        exclude: Sequence[int | str] = (),
        exclude_seen: bool = False,
    ) -> pd.DataFrame:
        """Find the k best targets for one source, given by its id or, if it is new, by features.

        Args:
            direction: u2i, i2i, u2u or i2u.
            id: a user or an item of the version. In i2i and u2u it is left out of its own answer.
            features: raw values by the schema's names, for any user or item; a history is a list
                of item ids.
            k: how many; fewer come only where no more are left.
            exclude: ids of targets to leave out; unknown ones do no harm.
            exclude_seen: in u2i, leave out the items that the user has in training or in the
                history given; in i2u, the users that have the item.

        Returns:
            The targets, best first: their id, `score`, and the other columns of their table.

        Raises:
            QueryError: the direction, the id, a feature or k is none that can be answered.
        """
        chosen = find_direction(direction)
        columns = None if features is None else {name: [value] for name, value in features.items()}
        sources = self._sources(chosen.source, None if id is None else [id], columns)
        target = self.embeddings(chosen.target)
        hits = self._search(
            chosen, sources, k=k, exclude=target.rows(exclude), exclude_seen=exclude_seen
        )
        found = hits.rows[0] >= 0
        frame: pd.DataFrame = target.table.iloc[hits.rows[0][found]].reset_index(drop=True)
        frame = frame.drop(columns="score", errors="ignore")
        frame.insert(1, "score", hits.scores[0][found])
        return frame

    def retrieve_batch(
        self,
        direction: str,
        *,
        ids: Sequence[int | str] | None = None,
        features: Mapping[str, Sequence[Any]] | None = None,
        k: int = 10,
        exclude_seen: bool = False,
    ) -> Hits:
        """Find the k best targets for each of n sources; as `retrieve`, with n values a feature.

        Raises:
            QueryError: as `retrieve`.
        """
        chosen = find_direction(direction)
        sources = self._sources(chosen.source, ids, features)
        return self._search(chosen, sources, k=k, exclude=NOTHING, exclude_seen=exclude_seen)

    def _search(
        self, direction: Direction, sources: _Sources, *, k: int, exclude: Rows, exclude_seen: bool
    ) -> Hits:
        """Search for all sources, each without the targets that are not wanted for it."""
        rows, scores = search_without(
            self._index(direction),
            direction.queries(sources.vectors).numpy(),
            k,
            excluded=self._excluded(direction, sources, exclude=exclude, exclude_seen=exclude_seen),
        )
        scores = scores + direction.constant(sources.vectors).numpy()[:, np.newaxis]
        target = self.embeddings(direction.target)
        return Hits(np.where(rows < 0, target.missing_id, target.ids[rows]), scores, rows)

    def _excluded(
        self, direction: Direction, sources: _Sources, *, exclude: Rows, exclude_seen: bool
    ) -> list[Rows]:
        """List, for each source, the rows of the targets that are not wanted."""
        if exclude_seen and direction.is_similarity:
            raise QueryError(
                f"exclude_seen: expected u2i or i2u, received {direction.name}; a user and an item "
                "can have seen each other, two items or two users cannot"
            )
        excluded = []
        for row, history in zip(sources.rows, sources.histories, strict=True):
            unwanted = [exclude]
            if direction.is_similarity:
                unwanted.append(np.array([row]))
            if exclude_seen:
                unwanted.append(self.seen.of(direction.source, row))
            if exclude_seen and direction.target == "item":
                unwanted.append(history)
            rows = np.unique(np.concatenate(unwanted))
            excluded.append(rows[rows >= 0])
        return excluded

    def _sources(
        self,
        side: Side,
        ids: Sequence[int | str] | None,
        columns: Mapping[str, Sequence[Any]] | None,
    ) -> _Sources:
        """Look the sources up by their ids, or compute them from their features."""
        if ids is not None and columns is None:
            return self._known(side, ids)
        if columns is not None and ids is None:
            return self._described(side, columns)
        raise QueryError(
            f"query: expected either the id or the features of the {side}, received "
            f"{'neither' if ids is None else 'both'}"
        )

    def _known(self, side: Side, ids: Sequence[int | str]) -> _Sources:
        """Look up the stored vectors."""
        embeddings = self.embeddings(side)
        rows = embeddings.rows(ids)
        if (rows < 0).any():
            raise QueryError(
                f"{embeddings.id_column}: version {self.bundle.version} has no {side} "
                f"{ids[int(np.argmin(rows))]!r}; ask by features instead"
            )
        return _Sources(embeddings.vectors[rows], rows, np.empty((len(rows), 0), np.int64))

    def _described(self, side: Side, columns: Mapping[str, Sequence[Any]]) -> _Sources:
        """Compute vectors from raw features, among which may be the id and the history.

        No features at all describe one source of which nothing is known.
        """
        tower, embeddings = self._tower(side), self.embeddings(side)
        size = next((len(values) for values in columns.values()), 1)
        packed = tower.pack(columns, size=size)
        rows = np.full(size, -1)
        if embeddings.id_column in packed:
            rows = embeddings.find(packed[embeddings.id_column])
        histories: Rows = np.empty((size, 0), np.int64)
        history = history_column(self.bundle.manifest.config)
        if side == "user" and history in packed:
            items = packed[history]
            histories = self.items.find(items.ravel()).reshape(items.shape)
        return _Sources(tower(packed), rows, histories)

    def embeddings(self, side: Side) -> Embeddings:
        """All users, or all items."""
        return self.users if side == "user" else self.items

    def _open_tower(self, side: Side) -> Tower:
        return Tower(self.bundle.model(f"{side}_tower"))

    def _open_index(self, direction: Direction) -> Index:
        """Load the direction's tree; where it has none, search its vectors exactly."""
        where = str(self.bundle.path / MANIFEST)
        record = IndexRecord.from_dict(self.bundle.manifest.index, where=where)
        vectors = self.embeddings(direction.target).vectors
        settings = record.directions[direction.name].settings
        if settings is None or settings.num_leaves is None:
            return ExactIndex(direction.corpus(vectors).numpy())
        folder = self.bundle.index(direction.name)
        width = direction.corpus(vectors[:1]).shape[1]
        return ScannIndex.load(folder, settings=settings, width=width)


def history_column(config: Mapping[str, Any]) -> str | None:
    """The feature that holds a user's history, by a run's configuration; None if there is none."""
    if config.get("user") is None:
        return History().column
    found = [f["column"] for f in config["user"]["features"] if f["kind"] == History().kind]
    return found[0] if found else None


def find_direction(name: str) -> Direction:
    """The direction called `name`.

    Raises:
        QueryError: there is none.
    """
    if name not in DIRECTIONS:
        raise QueryError(f"direction: expected one of {list(DIRECTIONS)}, received {name!r}")
    return DIRECTIONS[name]
