"""The two stages in one request: what recall finds for a user, in the order of the ranker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NotRequired

from fastapi import APIRouter
from pydantic import BeforeValidator, FailFast, Field, StrictStr
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import TypedDict

from serving.retrieval.questions import Question
from serving.retrieval.ranking import RankedHits, candidates_for, rank_hits
from serving.retrieval.retriever import Retriever
from serving.search.filters import Filter
from serving.server.api.dependencies import Current, NBytes, TheCore
from serving.server.api.error_answers import ERRORS
from serving.server.api.json_route import JsonRoute
from serving.server.api.request_model import REQUEST
from serving.server.api.request_values import Id, Many, check_lists
from serving.server.api.retrieve_models import ONE_OF, Asking, check_filter_size
from serving.server.api.table_json import plain_records
from serving.server.errors import DeadlineError
from serving.server.runtime.served_version import Served
from serving.server.runtime.server_core import ServerCore
from serving.version.saved_models.names import RANK
from towers.errors import QueryError

router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["retrieval"], responses=ERRORS)


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class RecommendQuery(Asking):
    """A user, and which items are wanted."""

    k: int = Field(10, ge=1, strict=True, description="How many; the server has a limit.")
    candidates: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="How many recall finds and the ranker orders; default: as it was trained.",
    )
    exclude: Many[Id] = Field(default_factory=list, description="Ids to leave out.")
    exclude_seen: bool = Field(False, strict=True, description="Leave out what the user has seen.")
    where: Annotated[Filter | None, BeforeValidator(check_filter_size)] = Field(
        None, description="Which items may be found, by the columns of their table."
    )
    columns: Annotated[list[StrictStr], FailFast()] = Field(
        default_factory=list, max_length=100, description="Columns of the items to answer with."
    )


class Recommended(TypedDict):
    """An item, with its scores in both stages."""

    id: Id
    score: Annotated[float, Field(description="The ranker's logit.")]
    recall_score: float
    recall_rank: Annotated[int, Field(description="Its rank among the candidates, from 1.")]
    columns: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Recommendation:
    """The best items, best first."""

    version: Annotated[int, Field(description="The version that answered, in both stages.")]
    ranker: Annotated[str, Field(description="The kind of its ranker.")]
    candidates: Annotated[int, Field(description="How many candidates were asked for.")]
    results: list[Recommended]


@router.post("/recommend", summary="The best items for one user, recalled and ranked")
async def recommend(
    query: RecommendQuery, core: TheCore, served: Current, n_bytes: NBytes
) -> Recommendation:
    """Find candidates for a user, and order them by the version's ranker.

    Both stages answer by one version, within one deadline, the server's. A version without a
    ranker is 400.
    """
    try:
        async with asyncio.timeout(core.settings.timeout_s):
            return await _recommend(core, served, query, n_bytes=n_bytes)
    except TimeoutError:
        raise DeadlineError(
            f"timeout: expected to find and rank within {core.settings.timeout_s} s; ask for fewer "
            "candidates"
        ) from None


async def _recommend(
    core: ServerCore, served: Served, query: RecommendQuery, *, n_bytes: int
) -> Recommendation:
    """Recall, rank, and show.

    Raises:
        QueryError: the request cannot be answered.
    """
    retriever = served.retriever
    check_lists([query.features or {}], most=core.settings.max_cells)
    wanted = candidates_for(retriever.parts, query.k, asked=query.candidates)
    if wanted > core.settings.max_k:
        raise QueryError(
            f"candidates: expected at most {core.settings.max_k}, received {wanted}; ask for less"
        )
    ask = partial(_ask, retriever, query, k=wanted)
    question = await core.prepare(ask, n_bytes=n_bytes)
    hits = await core.answer(served, question, model=RANK)
    ranked = await core.compute(
        served,
        partial(rank_hits, retriever.parts, question, hits, k=query.k),
        model=RANK,
        direction="u2i",
    )
    return Recommendation(
        version=served.version,
        ranker=retriever.parts.ranker.record.kind,
        candidates=wanted,
        results=await _results(core, served, ranked, columns=query.columns),
    )


def _ask(retriever: Retriever, query: RecommendQuery, *, k: int) -> Question:
    """Make the question of the first stage.

    Raises:
        QueryError: it cannot be answered.
        UnknownIdError: the id is unknown.
    """
    features = features_of(retriever, query)
    return retriever.ask(
        "u2i",
        ids=None if query.id is None else [query.id],
        features=None if features is None else {name: [x] for name, x in features.items()},
        k=k,
        exclude=query.exclude,
        exclude_seen=query.exclude_seen,
        where=query.where,
    )


def features_of(retriever: Retriever, query: Asking) -> dict[str, Any] | None:
    """The raw features of a user and of the moment; None for an id without a moment."""
    given = {**(query.features or {}), **(query.context or {})}
    if query.id is None and not given:  # of whom nothing is known
        return dict.fromkeys(retriever.tower("user").inputs)
    return given or None


async def _results(
    core: ServerCore, served: Served, ranked: RankedHits, *, columns: list[str]
) -> list[Recommended]:
    """Write what was found as plain values, with the columns that are wanted."""
    hits, found = ranked.hits, ranked.hits.rows[0] >= 0
    results: list[Recommended] = [
        {"id": id, "score": score, "recall_score": recall, "recall_rank": rank}
        for id, score, recall, rank in zip(
            hits.ids[0][found].tolist(),
            hits.scores[0][found].tolist(),
            ranked.recall_scores[0][found].tolist(),
            ranked.recall_ranks[0][found].tolist(),
            strict=True,
        )
    ]
    if columns:
        table = await core.show(served, "item", hits.rows[0][found], columns)
        for result, record in zip(results, plain_records(table), strict=True):
            result["columns"] = {name: record[name] for name in columns}
    return results
