"""The requests and the answers of the retrieval API, as its OpenAPI page describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Self

import numpy as np
from pydantic import BeforeValidator, ConfigDict, FailFast, Field, StrictStr, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import TypedDict

from serving.search.filters import MOST_CONDITIONS, Filter
from serving.server.api.request_model import REQUEST, RequestModel
from serving.server.api.request_values import MOST, Id, Many, Values

DEEPEST = 32
"""Conditions of a filter within each other."""
MOST_KEYS = 3
"""Keys of one condition, one more than any has."""
LARGEST = float(np.finfo(np.float32).max)

DirectionName = Literal["u2i", "i2i", "u2u", "i2u"]

ONE_OF = ConfigDict(json_schema_extra={"oneOf": [{"required": ["id"]}, {"required": ["features"]}]})


def check_filter_size(raw: Any) -> Any:
    """Refuse a filter that is too large before it is read, as that may take long.

    Raises:
        ValueError: it is.
    """
    waiting = [(raw, 1)]
    n_conditions = n_values = 0
    while waiting:
        node, depth = waiting.pop()
        n_conditions += 1
        if depth > DEEPEST:
            raise ValueError(f"expected at most {DEEPEST} conditions within each other")
        if not isinstance(node, dict):
            continue
        if len(node) > MOST_KEYS:
            raise ValueError("expected one of equals, in and range with a column, or and, or, not")
        listed = [value for value in node.values() if isinstance(value, list)]
        n_values += sum(len(value) for value in listed)
        if n_values > MOST:
            raise ValueError(f"expected at most {MOST} values in all lists of a filter together")
        for key in ("and", "or", "not"):
            inner = node.get(key, [])
            waiting += [(one, depth + 1) for one in (inner if isinstance(inner, list) else [inner])]
        if n_conditions + len(waiting) > MOST_CONDITIONS:
            raise ValueError(
                f"expected at most {MOST_CONDITIONS} conditions; use `in` for many values"
            )
    return raw


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class Source(RequestModel):
    """A user or an item: one that the version has, by its id, or any, by its features."""

    id: Id | None = None
    features: Values | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.id is None) == (self.features is None):
            raise ValueError("expected either an id or features")
        return self


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class Asking(Source):
    """A user or an item, and the moment at which a user asks."""

    context: Annotated[
        Values | None,
        Field(description="Of a user, features of the moment by name, beside its id or features."),
    ] = None


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class Options(RequestModel):
    """Which targets are wanted."""

    k: int = Field(
        10,
        ge=1,
        strict=True,
        description="How many; the server has a limit. Fewer if fewer match.",
    )
    exclude: Many[Id] = Field(
        default_factory=list, description="Ids to leave out; unknown ones do no harm."
    )
    exclude_seen: bool = Field(
        False,
        strict=True,
        description="u2i and i2u: leave out what the user has seen, or who has seen the item.",
    )
    where: Annotated[Filter | None, BeforeValidator(check_filter_size)] = Field(
        None, description="Which targets may be found, by the columns of their table."
    )
    min_score: float | None = Field(
        None,
        ge=-LARGEST,
        le=LARGEST,
        strict=True,
        description="Leave out targets that score less.",
    )
    max_per: dict[StrictStr, Annotated[int, Field(ge=1, strict=True)]] = Field(
        default_factory=dict,
        max_length=10,
        description="By column of the targets' table, how many may have the same value at most.",
    )
    diversity: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        strict=True,
        description="How much it counts that targets are unlike each other; 0: not at all.",
    )
    columns: Annotated[list[StrictStr], FailFast()] = Field(
        default_factory=list,
        max_length=100,
        description="Columns of the targets' table to answer with.",
    )


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST | ONE_OF)
class Query(Asking, Options):
    """One user or item, and which targets are wanted for it."""


@checked_dataclass(frozen=True, kw_only=True, config=REQUEST)
class BatchQuery(Options):
    """Several users or items, and which targets are wanted for each."""

    sources: Many[Asking] = Field(min_length=1, description="The server has a limit of its own.")


class Result(TypedDict):
    """A target that was found."""

    id: Id
    score: float
    columns: NotRequired[
        Annotated[dict[str, Any], Field(description="Only those that were asked for.")]
    ]


@dataclass(frozen=True)
class Applied:
    """What the answer has taken into account."""

    k: int
    excluded: Annotated[int, Field(description="How many of the ids to exclude there are.")]
    exclude_seen: bool
    where: Filter | None
    min_score: float | None
    max_per: dict[str, int]
    diversity: float


@dataclass(frozen=True)
class Answer:
    """The best targets, best first."""

    version: Annotated[int, Field(description="The version that answered.")]
    direction: DirectionName
    results: list[Result]
    applied: Applied


@dataclass(frozen=True)
class BatchAnswer:
    """The best targets for each source, in the order of the sources."""

    version: Annotated[int, Field(description="The version that answered, all of it.")]
    direction: DirectionName
    answers: list[list[Result]]
    applied: Applied
