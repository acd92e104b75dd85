"""The explanation of the second stage: why the ranker gives an item its score for a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from serving.retrieval.explanation.explain import Given
from serving.retrieval.ranking import RankPart
from serving.retrieval.retriever import Retriever
from serving.server.api.dependencies import Current, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.json_route import JsonRoute
from serving.server.api.recommend_routes import features_of
from serving.server.api.request_model import REQUEST
from serving.server.api.request_values import MOST, Id, check_lists
from serving.server.api.retrieve_models import ONE_OF, Asking

router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["retrieval"], responses=ERRORS)


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class ExplainRankQuery(Asking):
    """A user, maybe at a moment, and an item of the version."""

    item: Id
    limit: int = Field(50, ge=0, le=MOST, strict=True, description="The most parts to answer with.")


@dataclass(frozen=True)
class RankExplained:
    """The ranker's score and its parts, largest first by absolute value."""

    version: Annotated[int, Field(description="The version that answered.")]
    ranker: Annotated[str, Field(description="The kind of its ranker.")]
    score: Annotated[float, Field(description="The ranker's logit.")]
    recall_score: Annotated[float, Field(description="The score of the first stage.")]
    parts: list[RankPart]
    rest: Annotated[float, Field(description="The sum of the parts beyond the limit.")]


@router.post(
    "/explain/rank",
    summary="Why the ranker gives an item its score for a user",
    response_model=RankExplained,
)
async def explain_rank(query: ExplainRankQuery, core: TheCore, served: Current) -> dict[str, Any]:
    """Write the ranker's score as the sum over fields and their pairs that it is.

    A part of kind `field` is of one field by itself, `pair` of two together, with its share of the
    attention where the ranker has one; `bias` is what all scores share, and `network` what a
    network adds, which is no sum over fields. The parts and `rest` sum to `score`. A version
    without a ranker is 400; an id that the version does not have is 404.
    """
    check_lists([query.features or {}, query.context or {}], most=core.settings.max_cells)
    return await core.compute(
        served,
        lambda: _explain(served.retriever, query),
        model="explain",
        direction="u2i",
    )


def _explain(retriever: Retriever, query: ExplainRankQuery) -> dict[str, Any]:
    """Explain a pair, as plain values.

    Raises:
        QueryError: the version has no ranker, or what is given cannot be explained.
        UnknownIdError: an id is unknown.
    """
    given = {"id": query.id, "features": features_of(retriever, query)}
    source: Given = {name: value for name, value in given.items() if value is not None}
    found = retriever.explain_rank(source=source, item=query.item)
    about = {"version": retriever.version, "ranker": retriever.parts.ranker.record.kind}
    return about | found.to_dict(limit=query.limit)
