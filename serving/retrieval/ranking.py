"""The second stage: what recall has found, in the order of the version's ranker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.explanation.active_features import raw_features
from serving.retrieval.parts import Parts
from serving.retrieval.questions import Hits, Question
from serving.search.index import Rows, check_k
from serving.version.ranker import Packed
from towers.errors import QueryError
from towers.features.schema import Side


@dataclass(frozen=True, eq=False)
class RankedHits:
    """What was found for each of n sources, in the order of the ranker."""

    hits: Hits
    """The best k; `scores` are the ranker's logits, padded as those of `Hits`."""
    recall_scores: NDArray[np.float32]
    """[n, k] the scores by which recall found them."""
    recall_ranks: NDArray[np.int64]
    """[n, k] their ranks by these, from 1; 0 pads."""


@dataclass(frozen=True)
class RankPart:
    """What one field, or two together, add to the logit of a ranker."""

    fields: tuple[str, ...]
    """One field by itself, or a pair; none for the bias, which all scores share, and for what a
    network adds, which is no sum over fields."""
    kind: Literal["bias", "field", "pair", "network"]
    value: float
    attention: float | None = None
    """Of a pair, its share of the attention; None where the ranker has none."""


@dataclass(frozen=True)
class RankExplanation:
    """Why an item has its score: the parts sum to it."""

    score: float
    """The logit."""
    recall_score: float
    parts: tuple[RankPart, ...]
    """The largest first."""

    def to_dict(self, *, limit: int | None = None) -> dict[str, Any]:
        """The same as plain values, with the largest parts; `rest` is the sum of the others."""
        shown = self.parts[:limit]
        return {
            "score": self.score,
            "recall_score": self.recall_score,
            "parts": [asdict(part) for part in shown],
            "rest": self.score - sum(part.value for part in shown),
        }


def explain_rank(parts: Parts, question: Question, item: int) -> RankExplanation:
    """Say what the ranker's score of one item for the source of a question is the sum of.

    Raises:
        QueryError: the version has no ranker.
    """
    ranker, rows = parts.ranker, np.array([item])
    sides = sides_of(parts, question, rows)
    if question.packed is None:
        user = parts.catalogue("user").vectors[question.rows]
    else:
        user = parts.tower("user")(question.packed)
    recall = (user * parts.catalogue("item").vectors[rows]).sum(axis=1)
    place = np.zeros(1, dtype=np.int64)
    found = ranker.explain(sides, query=place, item=place, recall=recall)
    first = [
        RankPart((field,), "field", float(value))
        for field, value in zip(ranker.record.fields, found["first"][0], strict=True)
    ]
    attention = found["attention"][0].tolist() or [None] * len(ranker.record.pairs)
    pairs = [
        RankPart(pair, "pair", float(value), share)
        for pair, value, share in zip(
            ranker.record.pairs, found["pairs"][0], attention, strict=True
        )
    ]
    every = [*first, *pairs, RankPart((), "bias", float(found["bias"][0]))]
    if found["deep"][0]:
        every.append(RankPart((), "network", float(found["deep"][0])))
    every = [part for part in every if part.value]
    return RankExplanation(
        score=sum(part.value for part in every),
        recall_score=float(recall[0]),
        parts=tuple(sorted(every, key=lambda part: -abs(part.value))),
    )


def candidates_for(parts: Parts, k: int, *, asked: int | None) -> int:
    """How many candidates are found where the best k of them are wanted; never fewer than k.

    Raises:
        QueryError: the version has no ranker, or k is below 1.
    """
    check_k(k)
    return max(k, parts.ranker.record.candidates if asked is None else asked)


def rank_hits(parts: Parts, question: Question, hits: Hits, *, k: int) -> RankedHits:
    """Order hits by the ranker, and keep the best k of each source.

    Raises:
        BundleError: the ranker is damaged.
        QueryError: the version has none, or the question is not of u2i.
    """
    if question.direction.name != "u2i":
        raise QueryError(
            f"rank: expected items for users (u2i), received {question.direction.name}; the "
            "ranker knows no other direction"
        )
    ranker = parts.ranker
    source, place = np.nonzero(hits.rows >= 0)
    scores = np.full(hits.rows.shape, -np.inf, dtype=np.float32)
    if len(source):
        items, item = np.unique(hits.rows[source, place], return_inverse=True)
        sides = sides_of(parts, question, items)
        recall = hits.scores[source, place]
        scores[source, place] = ranker.score(sides, query=source, item=item, recall=recall)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]

    def ordered(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=1)

    rows = ordered(hits.rows)
    return RankedHits(
        hits=Hits(ordered(hits.ids), ordered(scores), rows),
        recall_scores=ordered(hits.scores),
        recall_ranks=np.where(rows >= 0, order + 1, 0),
    )


def sides_of(parts: Parts, question: Question, items: Rows) -> Mapping[Side, Packed]:
    """The packed features of the sources of a question, and of some items."""
    users, tower = question.packed, parts.tower("user")
    if users is None:
        users = tower.pack(raw_features(parts, "user", question.rows), size=question.size)
    raw = raw_features(parts, "item", items)
    return {"user": users, "item": parts.tower("item").pack(raw, size=len(items))}
