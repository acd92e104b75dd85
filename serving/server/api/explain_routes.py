"""The explanation API: why a target has its score."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from serving.retrieval.explanation.explain import Given
from serving.retrieval.explanation.terms import Kind
from serving.retrieval.parts import find_direction
from serving.retrieval.retriever import Retriever
from serving.server.api.json_answer import json_response
from serving.server.api.json_api import JsonRoute, Strict, errors
from serving.server.api.json_values import MOST, Id, check_lists
from serving.server.api.retrieve_models import DirectionName, Source
from serving.server.errors import NotFoundError
from serving.server.runtime.host import Host
from serving.server.runtime.served_version import Served

DESCRIPTION = """
A score is a sum over features and their pairs; the answer is that sum, its largest parts first:

- `first_order`: a feature of the item. `item_pair`: two of one item, the second in `other`.
- `user_item`: a feature of the user with one of the item; of the history, a past item that pulled.
- `shared`, `similar` (i2i and u2u): the same feature on both sides, and two others.

`source` is a feature of the source and `target` one of the target, null where a part has none. The
parts and `rest` sum to `score` to the precision of 32-bit floats, and so do the `fields`. An id
that the version does not have is 404: explain by features instead.
"""


class ExplainQuery(Strict):
    """A source and a target, of which the direction says what they are."""

    direction: DirectionName
    source: Source
    target: Source
    limit: int = Field(50, ge=0, le=MOST, description="The most parts to answer with.")


class Feature(BaseModel):
    """A feature of a user or an item."""

    field: str = Field(description="The column; the history's name for an item of the past.")
    token: str = Field(description="The token as text, the number, or the range of the bucket.")
    label: Id | None = Field(description="The id, of an item or user, to look it up by.")
    known: bool = Field(description="Whether training knew the token; all others share a vector.")
    x: float = Field(description="The value it counts with.")


class ScorePart(BaseModel):
    """A term of the score."""

    kind: Kind
    source: Feature | None
    target: Feature | None
    other: Feature | None
    value: float


class FieldSum(BaseModel):
    """All terms of one kind between two fields."""

    kind: Kind
    source: str | None
    target: str | None
    other: str | None
    value: float


class Explained(BaseModel):
    """The score and its parts, largest first by absolute value."""

    version: int = Field(description="The version that answered.")
    direction: DirectionName
    score: float
    parts: list[ScorePart]
    rest: float = Field(description="The sum of the parts beyond the limit.")
    fields: list[FieldSum]


class ExplainApi:
    """The route of explanations."""

    def __init__(self, host: Host) -> None:
        """Answer by `host`."""
        self._host = host
        self._reading = asyncio.Lock()

    def router(self) -> APIRouter:
        """The route."""
        router = APIRouter(route_class=JsonRoute, tags=["retrieval"])
        router.add_api_route(
            "/v1/explain",
            self.explain,
            methods=["POST"],
            response_model=Explained,
            responses=errors(400, 404, 413, 429, 503, 504),
            summary="Why a target has its score",
            description=DESCRIPTION,
        )
        return router

    async def explain(self, query: ExplainQuery) -> Response:
        """Answer for one pair."""
        served = self._host.current()
        check_lists([query.source.features or {}, query.target.features or {}])
        await self._read_names(served)
        found = await self._host.compute(
            served,
            lambda: _explain(served.retriever, query),
            model="explain",
            direction=query.direction,
        )
        return json_response(found)

    async def _read_names(self, served: Served) -> None:
        """Read the vocabulary once a version, where no query has to wait for it."""
        async with self._reading:
            await asyncio.to_thread(lambda: served.retriever.parts.feature_names)


def _explain(retriever: Retriever, query: ExplainQuery) -> dict[str, Any]:
    """Explain a pair, as plain values.

    Raises:
        QueryError: what is given cannot be explained.
        NotFoundError: an id is unknown.
    """
    direction = find_direction(query.direction)
    for side, end in ((direction.source, query.source), (direction.target, query.target)):
        catalogue = retriever.catalogue(side)
        if end.id is not None and catalogue.rows([end.id])[0] < 0:
            raise NotFoundError(
                f"{catalogue.id_column}: version {retriever.version} has no {side} {end.id!r}; "
                "explain by features instead"
            )
    found = retriever.explain(
        query.direction, source=_given(query.source), target=_given(query.target)
    )
    return found.to_dict(limit=query.limit)


def _given(end: Source) -> Given:
    """The one of both that is given."""
    return {"features": end.features} if end.id is None else {"id": end.id}
