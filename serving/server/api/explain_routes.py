"""The explanation API: why a target has its score."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from serving.retrieval.explanation.explain import Given
from serving.retrieval.explanation.terms import Kind
from serving.retrieval.retriever import Retriever
from serving.server.api.dependencies import Current, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.json_route import JsonRoute
from serving.server.api.request_model import REQUEST, RequestModel
from serving.server.api.request_values import MOST, Id, check_lists
from serving.server.api.retrieve_models import DirectionName, Source

_READING = Lock()
"""Held while a vocabulary is read, so that of two requests one waits for the other."""

router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["retrieval"], responses=ERRORS)


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class ExplainQuery(RequestModel):
    """A source and a target; the direction says which of them is a user or an item."""

    direction: DirectionName
    source: Source
    target: Source
    limit: int = Field(50, ge=0, le=MOST, strict=True, description="The most parts to answer with.")


@dataclass(frozen=True)
class Feature:
    """A feature of a user or an item."""

    field: Annotated[
        str, Field(description="The column; the history's name for an item of the past.")
    ]
    token: Annotated[
        str, Field(description="The token as text, the number, or the range of the bucket.")
    ]
    label: Annotated[Id | None, Field(description="The id, of an item or user, to look it up by.")]
    known: Annotated[
        bool, Field(description="Whether training knew the token; all others share a vector.")
    ]
    x: Annotated[float, Field(description="The value it counts with.")]


@dataclass(frozen=True)
class ScorePart:
    """A term of the score."""

    kind: Kind
    source: Feature | None
    target: Feature | None
    other: Feature | None
    value: float


@dataclass(frozen=True)
class FieldSum:
    """All terms of one kind between two fields."""

    kind: Kind
    source: str | None
    target: str | None
    other: str | None
    value: float


@dataclass(frozen=True)
class Explained:
    """The score and its parts, largest first by absolute value."""

    version: Annotated[int, Field(description="The version that answered.")]
    direction: DirectionName
    score: float
    parts: list[ScorePart]
    rest: Annotated[float, Field(description="The sum of the parts beyond the limit.")]
    fields: list[FieldSum]


@router.post("/explain", summary="Why a target has its score", response_model=Explained)
async def explain(query: ExplainQuery, core: TheCore, served: Current) -> dict[str, Any]:
    """Write a score as the sum over features and their pairs that it is, the largest parts first.

    - `first_order`: a feature of the item. `item_pair`: two of one item, the second in `other`.
    - `user_item`: a feature of the user with one of the item; of the history, a past item that
      pulled.
    - `shared`, `similar` (i2i and u2u): the same feature on both sides, and two others.

    `source` is a feature of the source and `target` one of the target, null where a part has none.
    The parts and `rest` sum to `score` to the precision of 32-bit floats, and so do the `fields`.
    An id that the version does not have is 404: explain by features instead.
    """
    given = [query.source.features or {}, query.target.features or {}]
    check_lists(given, most=core.settings.max_cells)
    await asyncio.to_thread(_read_names, served.retriever)
    return await core.compute(
        served,
        lambda: _explain(served.retriever, query),
        model="explain",
        direction=query.direction,
    )


def _read_names(retriever: Retriever) -> None:
    """Read the vocabulary, once a version, on a thread where no query has to wait for it."""
    with _READING:
        _ = retriever.parts.feature_names


def _explain(retriever: Retriever, query: ExplainQuery) -> dict[str, Any]:
    """Explain a pair, as plain values.

    Raises:
        QueryError: what is given cannot be explained.
        UnknownIdError: an id is unknown.
    """
    found = retriever.explain(
        query.direction, source=_given(query.source), target=_given(query.target)
    )
    return found.to_dict(limit=query.limit)


def _given(end: Source) -> Given:
    """The id or the features, whichever is given."""
    return {"features": end.features} if end.id is None else {"id": end.id}
