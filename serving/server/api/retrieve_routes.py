"""The retrieval API: ids or features in, the best targets out, with options TF Serving lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, Path

from serving.retrieval.parts import find_direction
from serving.retrieval.questions import Hits, Question
from serving.retrieval.retriever import Retriever
from serving.server.api.dependencies import Current, NBytes, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.json_route import JsonRoute
from serving.server.api.request_values import check_lists
from serving.server.api.retrieve_models import (
    Answer,
    Applied,
    Asking,
    BatchAnswer,
    BatchQuery,
    DirectionName,
    Options,
    Query,
    Result,
)
from serving.server.api.table_json import plain_records
from serving.server.errors import TooLargeError
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from towers.errors import QueryError

InPath = Annotated[
    DirectionName,
    Path(description="From users (u) or items (i) to users or items: u2i is items for a user."),
]


router = APIRouter(
    prefix="/v1/retrieve", route_class=JsonRoute, tags=["retrieval"], responses=ERRORS
)


@dataclass(frozen=True)
class _Part:
    """Sources of a request that one question asks about: all with an id, or all with features."""

    places: Sequence[int]
    """Where they are among the sources of the request."""
    question: Question


@router.post("/{direction}", summary="The best targets for one user or item")
async def retrieve(
    direction: InPath, query: Query, core: TheCore, served: Current, n_bytes: NBytes
) -> Answer:
    """Find the best targets for one source.

    An id that the version does not have is 404: ask by features instead.
    """
    asked = partial(_find, core, served, direction, options=query, n_bytes=n_bytes)
    found, applied = await asked(sources=[query])
    return Answer(served.version, direction, found[0], applied)


@router.post("/{direction}/batch", summary="The best targets for several users or items")
async def retrieve_batch(
    direction: InPath, query: BatchQuery, core: TheCore, served: Current, n_bytes: NBytes
) -> BatchAnswer:
    """Find the best targets for each of several sources.

    If one id is unknown, the whole request is 404.
    """
    asked = partial(_find, core, served, direction, options=query, n_bytes=n_bytes)
    found, applied = await asked(sources=query.sources)
    return BatchAnswer(served.version, direction, found, applied)


async def _find(
    core: ServerCore,
    served: Served,
    direction: str,
    *,
    sources: Sequence[Asking],
    options: Options,
    n_bytes: int,
) -> tuple[list[list[Result]], Applied]:
    """Ask for all sources; answers the results of each, and what was applied.

    Raises:
        QueryError: a source or an option cannot be answered.
        UnknownIdError: an id is unknown.
        TooLargeError: k, the sources or the results are too many.
    """
    _check_size(core, len(sources), k=options.k, n_columns=len(options.columns))
    check_lists([source.features or {} for source in sources], most=core.settings.max_cells)
    ask = partial(_ask, served.retriever, direction, sources, options)
    parts = await core.prepare(ask, size=len(sources), n_bytes=n_bytes)
    hits = await asyncio.gather(
        *(core.answer(served, part.question, model=direction) for part in parts)
    )
    found: list[list[Result]] = [[]] * len(sources)
    for part, answered in zip(parts, hits, strict=True):
        results = await _results(core, served, part.question, answered, columns=options.columns)
        for place, of_source in zip(part.places, results, strict=True):
            found[place] = of_source
    return found, _applied(parts[0].question, options)


def _check_size(core: ServerCore, n_sources: int, *, k: int, n_columns: int) -> None:
    settings = core.settings
    if k > settings.max_k:
        raise QueryError(f"k: expected at most {settings.max_k}, received {k}; ask for less")
    if n_sources > settings.max_batch:
        raise TooLargeError(
            f"sources: expected at most {settings.max_batch}, received {n_sources}; send "
            "several requests"
        )
    if n_sources * k > settings.max_results:
        raise TooLargeError(
            f"sources: expected at most {settings.max_results} results in one answer, received "
            f"{n_sources} sources with k = {k}; send several requests"
        )
    if n_sources * k * n_columns > settings.max_cells:
        raise TooLargeError(
            f"columns: expected at most {settings.max_cells} values in one answer, received "
            f"{n_sources} sources with k = {k} and {n_columns} columns; send several requests"
        )


async def _results(
    core: ServerCore, served: Served, question: Question, hits: Hits, *, columns: Sequence[str]
) -> list[list[Result]]:
    """Write the hits of each source as plain values, with the columns that are wanted."""
    table = None
    if columns:
        rows = hits.rows[hits.rows >= 0]
        table = await core.show(served, question.direction.target, rows, columns)
    written = hits.scores.nbytes * (1 + len(columns))
    return await core.prepare(partial(_write, hits, table, columns), n_bytes=written)


def _write(hits: Hits, table: pd.DataFrame | None, columns: Sequence[str]) -> list[list[Result]]:
    """The same, once the columns of all that was found are there. Any thread may call it."""
    found = hits.rows >= 0
    shown = iter(() if table is None else plain_records(table))
    answers = []
    finite = np.nan_to_num(hits.scores)  # JSON has no infinity
    for ids, scores, here in zip(hits.ids, finite, found, strict=True):
        pairs = zip(ids[here].tolist(), scores[here], strict=True)
        results: list[Result] = [{"id": id, "score": score} for id, score in pairs]
        if columns:
            for result in results:
                record = next(shown)
                result["columns"] = {name: record[name] for name in columns}
        answers.append(results)
    return answers


def _ask(
    retriever: Retriever, direction: str, sources: Sequence[Asking], options: Options
) -> list[_Part]:
    """Make the questions: one about the sources with an id, one about those with features.

    Raises:
        QueryError: a source or an option cannot be answered.
        UnknownIdError: an id is unknown.
    """
    ask = partial(
        retriever.ask,
        direction,
        k=options.k,
        exclude=options.exclude,
        exclude_seen=options.exclude_seen,
        where=options.where,
        min_score=options.min_score,
        max_per=options.max_per,
        diversity=options.diversity,
    )
    parts = []
    known = {place: source.id for place, source in enumerate(sources) if source.id is not None}
    if known:
        moments = _join([sources[place].context or {} for place in known]) or None
        parts.append(_Part(list(known), ask(ids=list(known.values()), features=moments)))
    described = {
        place: {**source.features, **(source.context or {})}
        for place, source in enumerate(sources)
        if source.features is not None
    }
    if described:
        tower = retriever.tower(find_direction(direction).source)
        nothing = {name: [None] * len(described) for name in tower.inputs}
        features = _join(list(described.values())) or nothing
        parts.append(_Part(list(described), ask(features=features)))
    return parts


def _join(given: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The features of several sources by name; what one does not give is missing."""
    names = dict.fromkeys(chain.from_iterable(given))
    return {name: [one.get(name) for one in given] for name in names}


def _applied(question: Question, options: Options) -> Applied:
    """What an answer has taken into account."""
    excluded = question.exclude[0]
    return Applied(
        options.k,
        excluded=len(np.unique(excluded[excluded >= 0])),
        exclude_seen=options.exclude_seen,
        where=options.where,
        min_score=options.min_score,
        max_per=options.max_per,
        diversity=options.diversity,
    )
