"""Retriever: answers queries in four directions from one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.retrieval.answers import answer
from serving.retrieval.catalogue import Catalogue
from serving.retrieval.changes import Asked, Change, apply_change, check_changes
from serving.retrieval.diversity import Diversity
from serving.retrieval.explanation.explain import Explanation, Given, explain
from serving.retrieval.explanation.importance import FieldImportance, draw_users, explain_fields
from serving.retrieval.parts import OpenIndex, Parts, find_direction
from serving.retrieval.questions import Hits, Options, Question, Wanted
from serving.retrieval.ranking import (
    RankExplanation,
    candidates_for,
    explain_rank,
    rank_hits,
)
from serving.retrieval.sources import NOTHING, find_sources, own_rows, past_items
from serving.search.filters import parse_filter
from serving.search.index import Rows, Vectors, check_k
from serving.version.bundle import Bundle
from serving.version.saved_models.tower import Tower
from serving.version.store import Store, open_bundle
from towers.directions import DIRECTIONS
from towers.errors import QueryError
from towers.features.schema import Side


class Retriever:
    """One loaded version, to ask questions of. Each part is read when it is first needed.

    Questions may come from several threads as long as nothing is changed; `apply` must have the
    retriever to itself.
    """

    def __init__(self, bundle: Bundle, *, index: OpenIndex | None = None) -> None:
        """Answer from `bundle`; `index` opens indexes that are not in it."""
        self.bundle = bundle
        self.parts = Parts(bundle, index=index)

    @classmethod
    def open(
        cls, path: str | Path, *, version: int | None = None, index: OpenIndex | None = None
    ) -> Retriever:
        """Open the current version of a models directory, or another; or one bundle by its folder.

        Args:
            path: the directory or the folder.
            version: which, if not the current.
            index: opens indexes that are not in the bundle, such as those in Milvus.

        Raises:
            BundleError: there is no such version, or it is damaged.
        """
        path = Path(path)
        bundle = open_bundle(path) if version is None else Store(path).open(version)
        return cls(bundle, index=index)

    @property
    def version(self) -> int:
        """The version's number."""
        return self.bundle.version

    def catalogue(self, side: Side) -> Catalogue:
        """The users or the items, by row."""
        return self.parts.catalogue(side)

    def tower(self, side: Side) -> Tower:
        """What turns features into vectors."""
        return self.parts.tower(side)

    def retrieve(
        self,
        direction: str,
        *,
        id: int | str | None = None,
        features: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> pd.DataFrame:
        """Find the k best targets for one source, given by its id or, if it is new, by features.

        Args:
            direction: u2i, i2i, u2u or i2u.
            id: a user or an item of the version. In i2i and u2u it is left out of its own answer.
            features: raw values by the schema's names, for any user or item; a history is a list
                of item ids. Beside the id of a user, features of the context alone.
            options: which targets are wanted: `k`, `exclude`, `exclude_seen`, `where`, `min_score`,
                `max_per` and `diversity`; see `serving.retrieval.questions.Options`.

        Returns:
            The targets, best first: `id`, `score`, and the other columns of their table, called
            `item.` or `user.` and their name.

        Raises:
            QueryError: the direction, the id, a feature, k or the filter is unknown or wrong.
        """
        question = self.ask(
            direction,
            ids=None if id is None else [id],
            features=None if features is None else {name: [x] for name, x in features.items()},
            **options,
        )
        return self._shown(question.direction.target, self.answer([question])[0])

    def recommend(
        self,
        *,
        id: int | str | None = None,
        features: Mapping[str, Any] | None = None,
        candidates: int | None = None,
        **options: Unpack[Options],
    ) -> pd.DataFrame:
        """Find items for a user as `retrieve` does, and order them by the version's ranker.

        Of `candidates` items that are found, by default as many as the ranker was trained to rank,
        the best k are answered. Their `score` is the ranker's logit; `recall_score` and
        `recall_rank` are those by which they were found.

        Raises:
            QueryError: as `retrieve`, or the version has no ranker.
        """
        k = Wanted(**options).k
        question = self.ask(
            "u2i",
            ids=None if id is None else [id],
            features=None if features is None else {name: [x] for name, x in features.items()},
            **options | {"k": candidates_for(self.parts, k, asked=candidates)},
        )
        ranked = rank_hits(self.parts, question, self.answer([question])[0], k=k)
        frame = self._shown("item", ranked.hits)
        found = ranked.hits.rows[0] >= 0
        frame.insert(2, "recall_score", ranked.recall_scores[0][found])
        frame.insert(3, "recall_rank", ranked.recall_ranks[0][found])
        return frame

    def retrieve_batch(
        self,
        direction: str,
        *,
        ids: Sequence[int | str] | None = None,
        features: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
        **options: Unpack[Options],
    ) -> Hits:
        """Find the k best targets for each of n sources; as `retrieve`, with n values a feature.

        Raises:
            QueryError: as `retrieve`.
        """
        return self.answer([self.ask(direction, ids=ids, features=features, **options)])[0]

    def ask(
        self,
        direction: str,
        *,
        ids: Sequence[int | str] | None = None,
        features: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
        **options: Unpack[Options],
    ) -> Question:
        """Check a question about n sources, without answering it; see `retrieve`.

        Raises:
            QueryError: as `retrieve`.
        """
        chosen, wanted = find_direction(direction), Wanted(**options)
        check_k(wanted.k)
        if wanted.exclude_seen and chosen.is_similarity:
            raise QueryError(
                f"exclude_seen: expected u2i or i2u, received {chosen.name}; a user and an item "
                "can have seen each other, two items or two users cannot"
            )
        targets = self.catalogue(chosen.target)
        where = None if wanted.where is None else parse_filter(wanted.where)
        if where is not None:
            targets.check_filter(where)
        diversity = Diversity.of(wanted.max_per, wanted.diversity)
        if diversity is not None:
            targets.show(NOTHING.ravel(), list(diversity.max_per))  # there are such columns
        if isinstance(features, pd.DataFrame):
            features = {str(name): column.tolist() for name, column in features.items()}
        packed, rows = find_sources(self.parts, chosen.source, ids=ids, features=features)
        seen = wanted.exclude_seen
        return Question(
            direction=chosen,
            rows=rows,
            packed=packed,
            histories=past_items(self.parts, chosen.source, rows, packed=packed)
            if seen
            else NOTHING,
            k=np.full(len(rows), wanted.k, dtype=np.int64),
            width=wanted.k,
            exclude=targets.rows(list(wanted.exclude))[np.newaxis].repeat(len(rows), 0),
            exclude_seen=seen,
            where=where,
            min_score=wanted.min_score,
            diversity=diversity,
        )

    def ask_packed(
        self,
        direction: str,
        packed: Mapping[str, NDArray[Any]],
        *,
        k: NDArray[Any],
        exclude: NDArray[Any] | None = None,
    ) -> Question:
        """Take a question about n sources whose features are dense arrays already.

        Args:
            direction: u2i, i2i, u2u or i2u.
            packed: every feature of the source's tower, as `Tower.pack` gives them.
            k: [n] integers, how many targets, each source's own.
            exclude: [n, m] ids of targets, of their type, that are not wanted.

        Raises:
            QueryError: there is no such direction, or k is below 1.
        """
        chosen = find_direction(direction)
        check_k(int(k.min(initial=1)))
        size = len(next(iter(packed.values())))
        unwanted: Rows = np.empty((size, 0), dtype=np.int64)
        if exclude is not None and exclude.size:
            found = self.catalogue(chosen.target).find(exclude.ravel())
            unwanted = found.reshape(exclude.shape)
        return Question(
            direction=chosen,
            rows=own_rows(self.parts, chosen.source, packed, size=size),
            packed=packed,
            histories=NOTHING,
            k=k.astype(np.int64),
            width=int(k.max(initial=1)),
            exclude=unwanted,
            exclude_seen=False,
            where=None,
            min_score=None,
        )

    def answer(self, questions: Sequence[Question]) -> list[Hits]:
        """Answer questions, those of one direction together."""
        return answer(self.parts, questions)

    def explain(self, direction: str, *, source: Given, target: Given) -> Explanation:
        """Say why a target has its score for a source: the terms that sum to it.

        Args:
            direction: u2i, i2i, u2u or i2u.
            source: `{"id": 1}`, a user or an item of the version, or `{"features": {...}}`, any
                by raw values.
            target: likewise.

        Raises:
            QueryError: the direction, an id or a feature is unknown or wrong.
            BundleError: the version was published before towers could tell, or what it keeps of a
                user or an item does not give its vector.
        """
        return explain(self.parts, direction, source=source, target=target)

    def explain_rank(self, *, source: Given, item: int | str) -> RankExplanation:
        """Say why the ranker gives an item its score for a user: the parts that sum to it.

        Args:
            source: `{"id": 1}`, a user of the version, or `{"features": {...}}`, any.
            item: the id of an item of the version.

        Raises:
            QueryError: the version has no ranker, or an id or a feature is unknown or wrong.
        """
        ids, features = source.get("id"), source.get("features")
        question = self.ask(
            "u2i",
            ids=None if ids is None else [ids],
            features=None if features is None else {name: [x] for name, x in features.items()},
        )
        (row,) = self.parts.known_rows("item", [item])
        return explain_rank(self.parts, question, int(row))

    def explain_fields(self, *, n_users: int = 1000, k: int = 10, seed: int = 0) -> FieldImportance:
        """Say which fields carry the scores of u2i, over what a sample of users would be shown.

        Args:
            n_users: how many users to draw.
            k: how many items each user is shown, without those that the user has seen.
            seed: decides the draw.

        Raises:
            QueryError: n_users or k is below 1.
            BundleError: as `explain`.
        """
        users = draw_users(self.parts, n_users, seed=seed)
        ids = self.catalogue("user").ids(users).tolist()
        shown = self.retrieve_batch("u2i", ids=ids, k=k, exclude_seen=True).rows
        return explain_fields(self.parts, users, shown=shown)

    def encode(self, side: Side, packed: Mapping[str, NDArray[Any]]) -> Vectors:
        """Compute the vectors [n, 1 + d] of packed features."""
        return self.tower(side)(packed)

    def change(
        self,
        side: Side,
        *,
        upsert: Sequence[Mapping[str, Any]] = (),
        delete: Sequence[int | str] = (),
    ) -> Change:
        """Check a change of what can be found, without making it.

        Args:
            side: user or item.
            upsert: to add or replace; each as a row of the side's table: the id, columns, and
                values of features. Columns that are not given are missing values. Of several with
                one id, the last counts.
            delete: ids to remove first; unknown ones do no harm.

        Raises:
            QueryError: an id, a column or a value does not fit the table or the features.
        """
        return check_changes(self.parts, side, [Asked(upsert=upsert, delete=delete)])[0]

    def apply(self, change: Change) -> None:
        """Make a change; the next question finds what was added, and not what was removed."""
        apply_change(self.parts, change)

    def warm(self) -> None:
        """Read all that questions need, and answer one in each direction; call the towers."""
        self.answer([self.ask(name, features={}) for name in DIRECTIONS])
        for tower in (self.tower("user"), self.tower("item")):
            if tower.explains:
                tower.active_features(tower.pack({}, size=1))
        _ = self.parts.seen
        if self.parts.ranker_record is not None:
            question = self.ask("u2i", features={}, k=1)
            rank_hits(self.parts, question, self.answer([question])[0], k=1)

    def index_sizes(self) -> dict[str, int]:
        """How many targets each direction finds, by its name."""
        return {name: self.parts.index(name).size for name in DIRECTIONS}

    def _shown(self, side: Side, hits: Hits) -> pd.DataFrame:
        """The targets of one source with the columns of their table."""
        found = hits.rows[0] >= 0
        frame = self.catalogue(side).show(hits.rows[0][found]).add_prefix(f"{side}.")
        frame = frame.rename(columns={frame.columns[0]: "id"})
        frame.insert(1, "score", hits.scores[0][found])
        return frame
