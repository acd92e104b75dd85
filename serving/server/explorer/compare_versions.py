"""Asks two versions one question, and finds the rank of each result in the other's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.retrieval.questions import Hits, Question
from serving.retrieval.retriever import Retriever
from serving.server.api.table_json import plain_records
from serving.server.explorer.models import Compared, CompareQuery, Comparison
from towers.errors import QueryError, UnknownIdError

DEEPER, LEAST_REACH = 5, 100
"""Both versions are asked for `DEEPER` times k results, at least `LEAST_REACH`, so that results
which one ranks just below k have a rank in the comparison."""


@dataclass(frozen=True)
class Listed:
    """The answer of one version."""

    ids: Sequence[int | str]
    scores: Sequence[float]
    columns: Sequence[Mapping[str, Any]]
    """Of the first k."""

    @classmethod
    def of(cls, hits: Hits, columns: Sequence[Mapping[str, Any]]) -> Listed:
        """Take the answer for one source."""
        found = hits.rows[0] >= 0
        scores = np.nan_to_num(hits.scores[0][found])  # JSON has no infinity
        return cls(hits.ids[0][found].tolist(), scores.tolist(), columns)


def reach_of(k: int, *, max_k: int) -> int:
    """How deep to ask for k results."""
    return min(max(k * DEEPER, LEAST_REACH), max(max_k, k))


def ask(retriever: Retriever, query: CompareQuery, *, reach: int) -> Question:
    """Make the question for one version.

    Raises:
        UnknownIdError: the version does not have the id.
        QueryError: the question cannot be answered.
    """
    features = query.features
    return retriever.ask(
        query.direction,
        ids=None if query.id is None else [query.id],
        features=None if features is None else {name: [x] for name, x in features.items()},
        k=reach,
        exclude=query.exclude,
        exclude_seen=query.exclude_seen,
        where=query.where,
        min_score=query.min_score,
        max_per=query.max_per,
        diversity=query.diversity,
    )


def answer_by(retriever: Retriever, query: CompareQuery, *, reach: int) -> Listed:
    """Let a version that does not serve answer, with those of the columns that it has.

    Raises:
        UnknownIdError: the version does not have the id.
        QueryError: the question cannot be answered; the message names the version.
    """
    try:
        question = ask(retriever, query, reach=reach)
        hits = retriever.answer([question])[0]
    except UnknownIdError:  # says so itself
        raise
    except QueryError as error:
        raise QueryError(f"version {retriever.version}: {error}") from None
    catalogue = retriever.catalogue(question.direction.target)
    rows = hits.rows[0][hits.rows[0] >= 0][: query.k]
    chosen = [name for name in query.columns if name in catalogue.columns]
    columns = plain_records(catalogue.show(rows, chosen)[chosen]) if chosen else []
    return Listed.of(hits, columns)


def compare(
    query: CompareQuery, current: Listed, other: Listed, *, version: int, reach: int
) -> Comparison:
    """Set the answers of the current version, `version`, and of the other beside each other."""
    mine, theirs = current.ids[: query.k], other.ids[: query.k]
    places = {id: place for place, id in enumerate(mine)}
    both = {id for id in theirs if id in places}
    return Comparison(
        direction=query.direction,
        version=version,
        other=query.other,
        k=query.k,
        reach=reach,
        results=_compared(current, other, k=query.k),
        other_results=_compared(other, current, k=query.k),
        moved=[id for place, id in enumerate(theirs) if places.get(id, place) != place],
        new=[id for id in mine if id not in both],
        gone=[id for id in theirs if id not in both],
    )


def _compared(listed: Listed, other: Listed, *, k: int) -> list[Compared]:
    ranks = {id: rank for rank, id in enumerate(other.ids, start=1)}
    found = []
    for place, id in enumerate(listed.ids[:k]):
        rank = ranks.get(id)
        found.append(
            Compared(
                id=id,
                rank=place + 1,
                score=listed.scores[place],
                other_rank=rank,
                other_score=None if rank is None else other.scores[rank - 1],
                columns=dict(listed.columns[place]) if listed.columns else {},
            )
        )
    return found
