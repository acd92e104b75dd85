"""The requests and the answers of the explorer's API, as its OpenAPI page describes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import FailFast, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from serving.server.api.request_model import REQUEST, RequestModel
from serving.server.api.request_values import Id
from serving.server.api.retrieve_models import ONE_OF, DirectionName, Query
from towers.features.schema import Side


@dataclass(frozen=True)
class Row:
    """A user or an item."""

    id: Id
    columns: Annotated[
        dict[str, Any], Field(description="The columns of the table, the id among them.")
    ]


@dataclass(frozen=True)
class Found:
    """What a search has found, best first."""

    version: int
    side: Side
    total: Annotated[int, Field(description="How many match; more than are answered, perhaps.")]
    results: list[Row]


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class LookupQuery(RequestModel):
    """Ids to look up."""

    ids: Annotated[list[Id], FailFast()] = Field(min_length=1, max_length=1000)


@dataclass(frozen=True)
class Known:
    """What is known of those ids that are there, in their order."""

    version: int
    side: Side
    results: list[Row]


@dataclass(frozen=True)
class PastItems:
    """The items that a user has, by the training positives or by the history that was put."""

    version: int
    id: Id
    total: int
    items: list[Row]


@dataclass(frozen=True, kw_only=True)
class VersionFigures:
    """A published version."""

    version: int
    is_current: bool
    readable: Annotated[
        bool, Field(description="Whether its manifest is whole; if not, the rest is empty.")
    ]
    name: str = ""
    created: Annotated[str, Field(description="ISO 8601, UTC.")] = ""
    parent_version: int | None = None
    mined_with: Annotated[
        int | None, Field(description="The version that found its hard negatives.")
    ] = None
    index: Annotated[str, Field(description="The kind of the index: exact or scann.")] = ""
    figures: Annotated[
        dict[str, dict[str, float | None]],
        Field(description="The evaluation's figures by segment and name, as recall@20."),
    ] = field(default_factory=dict)
    has_report: bool = False


@dataclass(frozen=True)
class Versions:
    """The published versions, newest first; the latest hundred."""

    version: Annotated[int, Field(description="The version that answers.")]
    versions: list[VersionFigures]


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class CompareQuery(Query):
    """A question, and the version to ask beside the current."""

    direction: DirectionName
    other: int = Field(ge=1, strict=True, description="A published version.")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A target that one of the two versions has found."""

    id: Id
    rank: Annotated[int, Field(description="From 1.")]
    score: float
    other_rank: Annotated[
        int | None, Field(description="Its rank by the other; null below `reach`.")
    ]
    other_score: float | None
    columns: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the current version and another one answer to the same question."""

    direction: DirectionName
    version: int
    other: int
    k: int
    reach: Annotated[
        int, Field(description="How deep both were asked to find the ranks of the other's.")
    ]
    results: Annotated[list[Compared], Field(description="The current version's.")]
    other_results: Annotated[
        list[Compared],
        Field(description="The other version's; `other_rank` is then the current version's."),
    ]
    moved: Annotated[list[Id], Field(description="In both lists, but at different ranks.")]
    new: Annotated[list[Id], Field(description="Only in the current version's list.")]
    gone: Annotated[list[Id], Field(description="Only in the other version's list.")]
