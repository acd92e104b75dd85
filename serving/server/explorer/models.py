"""The requests and the answers of the explorer's API, as its OpenAPI page describes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, FailFast, Field

from serving.server.api.json_api import Strict
from serving.server.api.json_values import Id
from serving.server.api.retrieve_models import DirectionName, Query
from towers.schema import Side


class Row(BaseModel):
    """A user or an item."""

    id: Id
    columns: dict[str, Any] = Field(description="The columns of the table, the id among them.")


class Found(BaseModel):
    """What a search has found, best first."""

    version: int
    side: Side
    total: int = Field(description="How many match; more than are answered, perhaps.")
    results: list[Row]


class LookupQuery(Strict):
    """Ids to look up."""

    ids: Annotated[list[Id], FailFast()] = Field(min_length=1, max_length=1000)


class Known(BaseModel):
    """What is known of those ids that are there, in their order."""

    version: int
    side: Side
    results: list[Row]


class PastItems(BaseModel):
    """The items that a user has, by the training positives or by the history that was put."""

    version: int
    id: Id
    total: int
    items: list[Row]


class VersionFigures(BaseModel):
    """A published version."""

    version: int
    is_current: bool
    readable: bool = Field(description="Whether its manifest is whole; if not, the rest is empty.")
    name: str = ""
    created: str = Field("", description="ISO 8601, UTC.")
    parent_version: int | None = None
    mined_with: int | None = Field(None, description="The version that found its hard negatives.")
    index: str = Field("", description="The kind of the index: exact or scann.")
    figures: dict[str, dict[str, float | None]] = Field(
        {}, description="The evaluation's figures by segment and name, as recall@20."
    )
    has_report: bool = False


class Versions(BaseModel):
    """The published versions, newest first; the latest hundred."""

    version: int = Field(description="The version that answers.")
    versions: list[VersionFigures]


class CompareQuery(Query):
    """A question, and the version to ask beside the current."""

    direction: DirectionName
    other: int = Field(ge=1, description="A published version.")


class Compared(BaseModel):
    """A target that one of the two versions has found."""

    id: Id
    rank: int = Field(description="From 1.")
    score: float
    other_rank: int | None = Field(description="Its rank by the other; null below `reach`.")
    other_score: float | None
    columns: dict[str, Any] = {}


class Comparison(BaseModel):
    """What the current version and another one answer to the same question."""

    direction: DirectionName
    version: int
    other: int
    k: int
    reach: int = Field(description="How deep both were asked to find the ranks of the other's.")
    results: list[Compared] = Field(description="The current version's.")
    other_results: list[Compared] = Field(
        description="The other version's; `other_rank` is then the current version's."
    )
    moved: list[Id] = Field(description="In both lists, but at different ranks.")
    new: list[Id] = Field(description="Only in the current version's list.")
    gone: list[Id] = Field(description="Only in the other version's list.")
