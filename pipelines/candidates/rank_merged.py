"""Rank merged candidates: the second stage, for a batch of users."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipelines.candidates.merge import Merged
from pipelines.candidates.sources import Sources
from serving.retrieval.explanation.active_features import raw_features
from serving.retrieval.parts import Parts
from serving.search.index import Rows
from serving.version.ranker import Packed
from serving.version.saved_models.tower import join_packed

RANKED_TOGETHER = 256
"""How many users are ranked at a time."""


def rank_merged(parts: Parts, sources: Sources, merged: Merged) -> Merged:
    """Order each user's candidates by the version's ranker, whose logits become their scores.

    Raises:
        QueryError: the version has no ranker.
    """
    scores = np.empty(len(merged.rows), dtype=np.float32)
    for start in range(0, sources.size, RANKED_TOGETHER):
        users = np.arange(start, min(start + RANKED_TOGETHER, sources.size))
        first, last = np.searchsorted(merged.places, [users[0], users[-1] + 1])
        if first < last:
            some = slice(int(first), int(last))
            scores[some] = _scores(parts, sources, users, merged, some)
    order = np.lexsort((-scores.astype(np.float64), merged.places))
    ranked = {
        column.name: getattr(merged, column.name)[order] for column in dataclasses.fields(Merged)
    }
    return Merged(**ranked | {"scores": scores[order], "ranks": merged.ranks})


def _scores(
    parts: Parts, sources: Sources, users: Rows, merged: Merged, some: slice
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The logits of the candidates of some users, who follow each other."""
    packed, number = _packed_users(parts, sources, users)
    places, rows = merged.places[some], merged.rows[some]
    items, item = np.unique(rows, return_inverse=True)
    raw = raw_features(parts, "item", items)
    vectors = parts.catalogue("item").vectors
    return parts.ranker.score(
        {"user": packed, "item": parts.tower("item").pack(raw, size=len(items))},
        query=number[places - users[0]],
        item=item,
        recall=np.einsum("nd,nd->n", sources.vectors[places], vectors[rows]),
    )


def _packed_users(parts: Parts, sources: Sources, users: Rows) -> tuple[Packed, Rows]:
    """The packed features of some users, in any order; and the place of each of them there, [n]."""
    is_described = np.isin(users, sources.described)
    known, tower = users[~is_described], parts.tower("user")
    batches: list[Packed] = []
    if len(known):
        raw = raw_features(parts, "user", sources.rows[known])
        batches.append(tower.pack(raw, size=len(known)))
    if is_described.any():
        at = np.searchsorted(sources.described, users[is_described])
        given = {name: values[at] for name, values in sources.packed.items()}
        batches.append(given)
    number = np.where(is_described, len(known) + np.cumsum(is_described), np.cumsum(~is_described))
    return join_packed(batches), number - 1
