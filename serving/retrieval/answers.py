"""Answers: questions of one direction share a pass of the tower and a search of the index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from serving.retrieval.filtered_search import search_filtered
from serving.retrieval.parts import Parts
from serving.retrieval.questions import Hits, Question
from serving.search.index import Pairs, Rows, Vectors, no_pairs, search_without
from serving.version.saved_models.tower import join_packed
from towers.directions import DIRECTIONS, Direction
from towers.errors import QueryError
from towers.schema import Side


def answer(parts: Parts, questions: Sequence[Question]) -> list[Hits]:
    """Answer questions about one version, in their order."""
    by_direction: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        by_direction[question.direction.name].append(number)
    answers: dict[int, Hits] = {}
    for name, numbers in by_direction.items():
        found = _answer_alike(parts, DIRECTIONS[name], [questions[number] for number in numbers])
        answers |= zip(numbers, found, strict=True)
    return [answers[number] for number in range(len(questions))]


def _answer_alike(parts: Parts, direction: Direction, questions: Sequence[Question]) -> list[Hits]:
    """Answer questions of one direction: one pass of the tower, one search."""
    vectors = _vectors(parts, direction.source, questions)
    queries = direction.project(vectors)
    offset = direction.offset(vectors)
    if not np.isfinite(offset).all():
        raise QueryError(
            "source vectors: expected finite numbers, received NaN or infinity; check the values "
            "of the numeric features"
        )
    unwanted = _unwanted(parts, direction, questions)
    index = parts.index(direction.name)
    rows, scores = search_without(
        index,
        queries,
        k=np.concatenate([q.k if q.where is None else np.zeros_like(q.k) for q in questions]),
        width=max(question.width for question in questions),
        unwanted=unwanted,
    )
    answers, start = [], 0
    for question in questions:
        mine = slice(start, start + question.size)
        start = mine.stop
        found = rows[mine, : question.width], scores[mine, : question.width]
        if question.where is not None:
            targets = parts.catalogue(direction.target)
            inside = (unwanted[0] >= mine.start) & (unwanted[0] < mine.stop)
            found = search_filtered(
                index,
                direction,
                targets,
                queries[mine],
                k=question.k,
                width=question.width,
                where=question.where,
                unwanted=(unwanted[0][inside] - mine.start, unwanted[1][inside]),
            )
        answers.append(_hits(parts, question, *found, offset=offset[mine]))
    return answers


def _hits(
    parts: Parts, question: Question, rows: Rows, scores: Vectors, *, offset: Vectors
) -> Hits:
    """Name what was found, less what scores too low; `offset` [n] is what the scores lack."""
    scores = scores + offset[:, np.newaxis]
    if question.min_score is not None:
        low = scores < question.min_score
        rows, scores = np.where(low, -1, rows), np.where(low, np.float32(-np.inf), scores)
    return Hits(parts.catalogue(question.direction.target).ids(rows), scores, rows)


def _vectors(parts: Parts, side: Side, questions: Sequence[Question]) -> Vectors:
    """The sources' vectors: stored, or by one pass of the tower for all that are described."""
    described = [q.packed for q in questions if q.packed is not None]
    if not described:
        stored: Vectors = parts.catalogue(side).vectors[np.concatenate([q.rows for q in questions])]
        return stored
    encoded = parts.tower(side)(join_packed(described))
    if len(described) == len(questions):
        return encoded
    vectors, start = [], 0
    for question in questions:
        if question.packed is None:
            vectors.append(parts.catalogue(side).vectors[question.rows])
        else:
            vectors.append(encoded[start : start + question.size])
            start += question.size
    return np.concatenate(vectors)


def _unwanted(parts: Parts, direction: Direction, questions: Sequence[Question]) -> Pairs:
    """List the targets that are not wanted, with the numbers of the sources they are not for."""
    pairs, start = [no_pairs()], 0
    for question in questions:
        wide = [question.exclude]
        if direction.is_similarity:
            wide.append(question.rows[:, np.newaxis])
        if question.exclude_seen:
            wide.append(question.histories)
            places, rows = parts.seen.pairs(direction.source, question.rows)
            pairs.append((start + places, rows))
        for rows in wide:
            places, columns = np.nonzero(rows >= 0)
            if len(places):
                pairs.append((start + places, rows[places, columns]))
        start += question.size
    return np.concatenate([p for p, _ in pairs]), np.concatenate([r for _, r in pairs])
