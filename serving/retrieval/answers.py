"""Answers several questions together, so that they share the costly steps.

Questions of one direction are stacked: the tower encodes the sources of all of them in one pass,
and the index searches for all of them at once. A row of the stacked arrays is one source, and each
question has consecutive rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from serving.retrieval.diversity import search_diverse
from serving.retrieval.filtered_search import search_filtered
from serving.retrieval.parts import Parts
from serving.retrieval.questions import Hits, Question
from serving.search.index import Found, Pairs, Rows, Vectors, no_pairs, search_without
from serving.version.saved_models.tower import join_packed
from towers.directions import DIRECTIONS, Direction
from towers.errors import QueryError
from towers.features.schema import Side


def answer(parts: Parts, questions: Sequence[Question]) -> list[Hits]:
    """Answer questions about one version, in the order of the questions.

    Raises:
        QueryError: the features of a source give a vector that is not finite.
    """
    by_direction: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        by_direction[question.direction.name].append(number)
    answers: dict[int, Hits] = {}
    for name, numbers in by_direction.items():
        found = _answer_direction(parts, DIRECTIONS[name], [questions[n] for n in numbers])
        answers |= zip(numbers, found, strict=True)
    return [answers[number] for number in range(len(questions))]


def _answer_direction(
    parts: Parts, direction: Direction, questions: Sequence[Question]
) -> list[Hits]:
    """Answer questions that are all of one direction."""
    vectors = _encode_sources(parts, direction.source, questions)
    queries, offset = direction.project(vectors), direction.offset(vectors)
    if not np.isfinite(offset).all():
        raise QueryError(
            "source vectors: expected finite numbers, received NaN or infinity; check the values "
            "of the numeric features"
        )
    excluded = _list_excluded(parts, direction, questions)
    rows, scores = search_without(
        parts.index(direction.name),
        queries,
        # A question with a filter has a search of its own below, and here asks for nothing.
        k=np.concatenate([np.zeros_like(q.k) if _is_alone(q) else q.k for q in questions]),
        width=max(question.width for question in questions),
        unwanted=excluded,
    )
    answers = []
    ends = accumulate(question.size for question in questions)
    for question, end in zip(questions, ends, strict=True):
        its = slice(end - question.size, end)
        found = rows[its, : question.width], scores[its, : question.width]
        if _is_alone(question):
            found = _search_alone(
                parts, question, queries[its], unwanted=_within(excluded, its), offset=offset[its]
            )
        answers.append(_to_hits(parts, question, found, offset=offset[its]))
    return answers


def _is_alone(question: Question) -> bool:
    """Whether a question has a search of its own."""
    return question.where is not None or question.diversity is not None


def _search_alone(
    parts: Parts, question: Question, queries: Vectors, *, unwanted: Pairs, offset: Vectors
) -> Found:
    """Search for one question: among the targets that match, and for those unlike each other."""
    direction = question.direction
    index, targets = parts.index(direction.name), parts.catalogue(direction.target)

    def search(some: Rows, k: Rows) -> Found:
        width, out = int(k.max(initial=1)), _of_some(unwanted, some)
        if question.where is None:
            return search_without(index, queries[some], k=k, width=width, unwanted=out)
        return search_filtered(
            index,
            direction,
            targets,
            queries[some],
            k=k,
            width=width,
            where=question.where,
            unwanted=out,
        )

    if question.diversity is None:
        return search(np.arange(question.size), question.k)
    least = np.full(question.size, -np.inf, dtype=np.float32)
    if question.min_score is not None:
        least = np.float32(question.min_score) - offset
    return search_diverse(
        search,
        targets,
        direction,
        diversity=question.diversity,
        k=question.k,
        width=min(question.width, index.size),
        least=least,
    )


def _of_some(pairs: Pairs, some: Rows) -> Pairs:
    """Those pairs whose sources are among some, ascending, by their places there."""
    sources, targets = pairs
    inside = np.isin(sources, some)
    return np.searchsorted(some, sources[inside]), targets[inside]


def _to_hits(parts: Parts, question: Question, found: Found, *, offset: Vectors) -> Hits:
    """Turn the rows that a search found into ids, and its scores into match scores.

    A row whose score is below the question's minimum is padded as if it had not been found.

    Args:
        parts: of the version.
        question: what was asked.
        found: rows [n, k] of targets and their scores.
        offset: [n] what is added to every score of a source; the index does not know it.
    """
    rows, scores = found
    scores = scores + offset[:, np.newaxis]
    if question.min_score is not None:
        is_low = scores < question.min_score
        rows, scores = np.where(is_low, -1, rows), np.where(is_low, np.float32(-np.inf), scores)
    return Hits(parts.catalogue(question.direction.target).ids(rows), scores, rows)


def _encode_sources(parts: Parts, side: Side, questions: Sequence[Question]) -> Vectors:
    """The vectors of all sources, [n, 1 + d], in the order of the questions.

    Sources that are given by id have the vector that is stored; the tower encodes the others.
    """
    described = [question.packed for question in questions if question.packed is not None]
    stored = parts.catalogue(side).vectors
    if not described:
        chosen: Vectors = stored[np.concatenate([question.rows for question in questions])]
        return chosen
    encoded = parts.tower(side)(join_packed(described))
    if len(described) == len(questions):
        return encoded
    vectors, start = [], 0
    for question in questions:
        if question.packed is None:
            vectors.append(stored[question.rows])
        else:
            vectors.append(encoded[start : start + question.size])
            start += question.size
    return np.concatenate(vectors)


def _list_excluded(parts: Parts, direction: Direction, questions: Sequence[Question]) -> Pairs:
    """List the targets that each source must not be answered with.

    These are the ids to exclude, in i2i and u2u the source itself and, where `exclude_seen` is set,
    what the source has seen in training or has in the history given.

    Returns:
        The rows of sources among all those stacked, and the row of one such target for each.
    """
    pairs, start = [no_pairs()], 0
    for question in questions:
        padded = [question.exclude]
        if direction.is_similarity:
            padded.append(question.rows[:, np.newaxis])
        if question.exclude_seen:
            padded.append(question.histories)
            sources, targets = parts.seen.pairs(direction.source, question.rows)
            pairs.append((start + sources, targets))
        for rows in padded:
            if not rows.size:
                continue
            sources, columns = np.nonzero(rows >= 0)
            if len(sources):
                pairs.append((start + sources, rows[sources, columns]))
        start += question.size
    if len(pairs) == 1:
        return pairs[0]
    return np.concatenate([s for s, _ in pairs]), np.concatenate([t for _, t in pairs])


def _within(pairs: Pairs, its: slice) -> Pairs:
    """Those pairs whose sources are rows of one question, counted from its first row."""
    sources, targets = pairs
    inside = (sources >= its.start) & (sources < its.stop)
    return sources[inside] - its.start, targets[inside]
