"""Describes the features and columns of users and items, for the explorer's forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from serving.retrieval.find_text import is_text
from serving.retrieval.retriever import Retriever
from serving.server.api.retrieve_models import DirectionName
from serving.version.embeddings import Embeddings
from towers.directions import DIRECTIONS
from towers.features.kinds import MultiValued
from towers.features.schema import Side

SAMPLED = 100_000
"""The most rows that examples are taken from. They are at even distances in the table."""
EXAMPLES, LONGEST_EXAMPLE = 50, 80
"""The most examples of a column, and the most characters of an example."""
DISTINCT = 0.5
"""A text column whose share of different values is larger is taken for the names of rows."""

Type = Literal["integer", "number", "text", "boolean", "other"]
Kind = Literal[
    "history", "categorical", "cross", "multi_valued", "numeric", "vector", "trend", "weights"
]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    name: str
    type: Type
    many: Annotated[bool, Field(description="Whether a value is a list.")]
    examples: Annotated[list[Any], Field(description="Frequent values, the most frequent first.")]
    min: Annotated[Any, Field(description="Of numbers: the least, and `max` the largest.")] = None
    max: Any = None


@dataclass(frozen=True, kw_only=True)
class Feature(Column):
    """What a tower reads."""

    kind: Kind


@dataclass(frozen=True, kw_only=True)
class SideSchema:
    """The users or the items."""

    id: Annotated[str, Field(description="The column of the ids.")]
    id_type: Type
    size: Annotated[int, Field(description="How many can be found.")]
    label: Annotated[
        str | None, Field(description="The column of text that names a row, if there is one.")
    ]
    features: list[Feature]
    columns: list[Column]


@dataclass(frozen=True)
class Direction:
    """From a source to the targets that are ranked for it."""

    name: DirectionName
    source: Side
    target: Side


@dataclass(frozen=True, kw_only=True)
class ExplorerSchema:
    """What can be asked of the current version."""

    version: int
    name: Annotated[str, Field(description="The run's name.")]
    max_k: int
    ranker: Annotated[str | None, Field(description="The kind of its ranker; null without.")]
    directions: list[Direction]
    user: SideSchema
    item: SideSchema


def describe(retriever: Retriever, *, max_k: int) -> ExplorerSchema:
    """Describe a version; takes up to seconds for millions of rows."""
    ranker = retriever.parts.ranker_record
    return ExplorerSchema(
        version=retriever.version,
        name=retriever.bundle.manifest.name,
        max_k=max_k,
        ranker=None if ranker is None else ranker.kind,
        directions=[
            Direction(name, DIRECTIONS[name].source, DIRECTIONS[name].target)
            for name in get_args(DirectionName)
        ],
        user=_describe_side(retriever, "user"),
        item=_describe_side(retriever, "item"),
    )


def _describe_side(retriever: Retriever, side: Side) -> SideSchema:
    catalogue = retriever.catalogue(side)
    published = catalogue.published
    columns = {name: _describe_column(published, name) for name in published.columns}
    return SideSchema(
        id=catalogue.id_column,
        id_type=columns[catalogue.id_column].type,
        size=catalogue.n_present,
        label=_label(published),
        features=_describe_features(retriever, side, columns),
        columns=[column for name, column in columns.items() if name != catalogue.id_column],
    )


def _describe_features(
    retriever: Retriever, side: Side, columns: Mapping[str, Column]
) -> list[Feature]:
    """Describe what a tower reads, in the order of the configuration."""
    kinds, names = _kinds(retriever, side), retriever.parts.schema.columns(side)
    inputs = retriever.tower(side).inputs
    order = sorted(
        inputs, key=lambda name: list(kinds).index(name) if name in kinds else len(kinds)
    )
    found = []
    for name in order:
        dtype, many = np.dtype(inputs[name].dtype), inputs[name].rank > 1
        kind = kinds.get(name) or _kind_of(dtype, many=many)
        column = columns.get(names.get(name, ""))
        found.append(
            Feature(
                name=name,
                kind=kind,
                type=_type_of_dtype(dtype),
                many=many,
                examples=[] if kind == "history" or column is None else column.examples,
                min=None if column is None else column.min,
                max=None if column is None else column.max,
            )
        )
    return found


def _kinds(retriever: Retriever, side: Side) -> dict[str, Kind]:
    """The kind of each feature that the run's configuration names, and where weights are."""
    features = retriever.parts.schema.tower_features(side)
    kinds: dict[str, Kind] = {feature.name: feature.kind for feature in features}
    given = [f.weights_name for f in features if isinstance(f, MultiValued) and f.weights]
    return kinds | dict.fromkeys(given, "weights")


def _kind_of(dtype: np.dtype[Any], *, many: bool) -> Kind:
    if many:
        return "weights" if dtype.kind == "f" else "multi_valued"
    return "numeric" if dtype.kind == "f" else "categorical"


def _type_of_dtype(dtype: np.dtype[Any]) -> Type:
    types: dict[str, Type] = {"i": "integer", "f": "number", "O": "text"}
    return types.get(dtype.kind, "other")


def _describe_column(published: Embeddings, name: str) -> Column:
    values = published.column(name)
    many = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    kind = _type_of(values.type.value_type if many else values.type)
    lowest = highest = None
    examples: list[Any] = []
    if name != published.id_column and kind != "other":
        sample = _sample(values)
        if not (many and kind == "number"):  # nobody chooses weights or the numbers of a vector
            examples = _examples(pc.list_flatten(sample) if many else sample)
        if kind in {"integer", "number"} and not many:
            lowest, highest = (_plain(value) for value in pc.min_max(values).values())
    return Column(name=name, type=kind, many=many, examples=examples, min=lowest, max=highest)


def _type_of(kind: pa.DataType) -> Type:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "text" if is_text(kind) or pa.types.is_date(kind) else "other"


def _sample(values: pa.Array) -> pa.Array:
    """Take rows at even distances."""
    if len(values) <= SAMPLED:
        return values
    places: NDArray[np.int64] = np.linspace(0, len(values) - 1, SAMPLED).astype(np.int64)
    return values.take(pa.array(places))


def _examples(values: pa.Array) -> list[Any]:
    """The most frequent values, without those that are too long for a list of choices."""
    counts = pc.value_counts(values.drop_null())
    frequent = pc.select_k_unstable(
        pa.table({"count": counts.field("counts"), "value": counts.field("values")}),
        k=min(EXAMPLES, len(counts)),
        sort_keys=[("count", "descending"), ("value", "ascending")],
    )
    chosen = [_plain(value) for value in counts.field("values").take(frequent)]
    return [value for value in chosen if value is not None and len(str(value)) <= LONGEST_EXAMPLE]


def _plain(value: pa.Scalar) -> Any:
    """A value for JSON; None for NaN and infinity, which JSON does not have."""
    plain = value.as_py()
    if isinstance(plain, date):
        return plain.isoformat()
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain


def _label(published: Embeddings) -> str | None:
    """The first column of text that tells most rows apart."""
    for name in published.columns[1:]:
        values = published.column(name)
        if is_text(values.type):
            sample = _sample(values).drop_null()
            if pc.count_distinct(sample).as_py() > DISTINCT * max(min(len(values), SAMPLED), 1):
                return name
    return None
