"""Explain: why a target has its score, as a table of terms that sum to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from serving.retrieval.explanation.active_features import (
    ActiveFeatures,
    Packed,
    encode_features,
    known_features,
)
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.explanation.terms import KINDS, Kind, Terms, split_score
from serving.retrieval.notebook import notebook_html
from serving.retrieval.parts import Parts, find_direction
from serving.search.index import Vectors
from towers.errors import QueryError
from towers.features.schema import Side

Given = Mapping[str, Any]
"""`{"id": 1}`: a user or an item of the version; `{"features": {...}}`: any, by raw values."""

Name = TypeVar("Name", FeatureName, str)


@dataclass(frozen=True)
class Part(Generic[Name]):
    """One term of a score, between features or, summed, between fields."""

    kind: Kind
    source: Name | None
    """The source's; None in a term of the target alone."""
    target: Name | None
    """The target's; None in a term of the source alone."""
    other: Name | None
    """The second of a pair within the item."""
    value: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """A score, and the terms that sum to it to float32's precision."""

    version: int
    direction: str
    score: float
    """Of the vectors that are ranked, in float64."""
    terms: Terms
    """Largest first, by absolute value."""
    source: list[FeatureName]
    """The names of the source's features, by their places."""
    target: list[FeatureName]
    """Of the target's."""

    def __len__(self) -> int:
        """How many terms there are."""
        return len(self.terms)

    def parts(self, limit: int | None = None) -> list[Part[FeatureName]]:
        """The largest terms, by absolute value; all by default."""
        return _named(self.terms.take(slice(limit)), self.source, self.target)

    def rest(self, limit: int | None) -> float:
        """The sum of the terms that `parts` leaves out."""
        return 0.0 if limit is None else float(self.terms.value[limit:].sum())

    @cached_property
    def fields(self) -> list[Part[str]]:
        """The terms summed by kind and fields, largest first, by absolute value."""
        fields = list(dict.fromkeys(name.field for name in (*self.source, *self.target)))
        source, target = (
            np.array([fields.index(name.field) for name in names], dtype=np.int64)
            for names in (self.source, self.target)
        )
        return _named(self.terms.group_by(source, target).largest_first(), fields, fields)

    def to_frame(self) -> pd.DataFrame:
        """One row a term, largest first: `part`, the features as text, and `value`."""
        return _frame(self.parts())

    def _repr_html_(self) -> str:
        """What a notebook shows: the largest terms, and all by field."""
        title = (
            f"{self.direction}, version {self.version}: the score, {self.score:.4f}, is the sum of"
        )
        by_field = notebook_html(_frame(self.fields), title="By field")
        return notebook_html(self.to_frame(), title=title) + by_field

    def to_dict(self, *, limit: int | None = None) -> dict[str, Any]:
        """The same as plain values, with at most `limit` parts."""
        return {
            "version": self.version,
            "direction": self.direction,
            "score": self.score,
            "parts": [asdict(part) for part in self.parts(limit)],
            "rest": self.rest(limit),
            "fields": [asdict(part) for part in self.fields],
        }


def _frame(parts: Sequence[Part[Name]]) -> pd.DataFrame:
    """Parts as a table; a feature that a part has none of is an empty text."""

    def text(name: Name | None) -> str:
        return "" if name is None else str(name)

    rows = [[p.kind, text(p.source), text(p.target), text(p.other), p.value] for p in parts]
    return pd.DataFrame(rows, columns=["part", "source", "target", "and", "value"])


def explain(parts: Parts, direction: str, *, source: Given, target: Given) -> Explanation:
    """Split the score of a pair into its terms; see `Retriever.explain`."""
    chosen = find_direction(direction)
    one = _Explained.of(parts, chosen.source, source, where="source")
    other = _Explained.of(parts, chosen.target, target, where="target")
    score = chosen.score(*(end.vector[np.newaxis].astype(np.float64) for end in (one, other)))
    return Explanation(
        parts.bundle.version,
        direction,
        float(score[0, 0]),
        split_score(chosen, one.features, other.features).largest_first(),
        one.names,
        other.names,
    )


@dataclass(frozen=True, eq=False)
class _Explained:
    """A source or a target."""

    features: ActiveFeatures
    names: list[FeatureName]
    """Of the features."""
    vector: Vectors
    """That is ranked: the stored one where there is one, [1 + d]."""

    @classmethod
    def of(cls, parts: Parts, side: Side, given: Given, *, where: str) -> _Explained:
        """Take what is given.

        Raises:
            QueryError: it is neither an id that the version has nor features of their types.
            BundleError: as `known_features`.
        """
        if len(given) != 1 or not given.keys() <= {"id", "features"}:
            raise QueryError(
                f"{where}: expected either the id or the features of the {side}, received "
                f"{sorted(given)}"
            )
        if "features" in given:
            columns = {name: [value] for name, value in given["features"].items()}
            packed = parts.tower(side).pack(columns, size=1)
            (vector,) = parts.tower(side)(packed)
            if not np.isfinite(vector).all():
                raise QueryError(
                    f"{where}: expected features with a finite vector, received NaN or infinity; "
                    "check the values of the numeric features"
                )
            (features,) = encode_features(parts, side, packed)
            return cls(features, _names(parts, features, packed), vector)
        rows = parts.known_rows(side, [given["id"]], remedy="explain by features instead")
        (features,), (source,) = known_features(parts, side, rows)
        (vector,) = parts.catalogue(side).vectors[rows]
        return cls(features, _names(parts, features, source), vector)


def _names(parts: Parts, features: ActiveFeatures, packed: Packed) -> list[FeatureName]:
    """Name active features by the packed ones that they come from."""
    return parts.feature_names.of(features.rows, features.x, packed=packed, side=features.side)


def _named(terms: Terms, source: Sequence[Name], target: Sequence[Name]) -> list[Part[Name]]:
    """Write terms with the names of their features or groups."""
    columns = (terms.kind, terms.source, terms.target, terms.other, terms.value)
    found = []
    for kind, one, two, other, value in zip(*(c.tolist() for c in columns), strict=True):
        names = target if one < 0 else source
        found.append(
            Part(
                KINDS[kind],
                None if one < 0 else source[one],
                None if two < 0 else target[two],
                None if other < 0 else names[other],
                value,
            )
        )
    return found
