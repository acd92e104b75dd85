"""Explain: why a target has its score, as a table of parts that sum to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.explanation.bag import Bag, Floats, Packed
from serving.retrieval.explanation.encode import encode_bags, known_bags
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.explanation.terms import KINDS, Kind, Terms, split_score
from serving.retrieval.parts import Parts, find_direction
from towers.directions import Direction
from towers.errors import QueryError
from towers.schema import Side

Given = Mapping[str, Any]
"""`{"id": 1}`: a user or an item of the version; `{"features": {...}}`: any, by raw values."""


@dataclass(frozen=True)
class Part:
    """One term of a score."""

    kind: Kind
    source: FeatureName | None
    """The source's feature; None in a term of the target alone."""
    target: FeatureName | None
    """The target's feature; None in a term of the source alone."""
    other: FeatureName | None
    """The second feature of a pair within the item."""
    value: float

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        features = {"source": self.source, "target": self.target, "other": self.other}
        plain = {end: None if one is None else dict(vars(one)) for end, one in features.items()}
        return {"kind": self.kind, **plain, "value": self.value}


@dataclass(frozen=True)
class FieldPart:
    """All terms of one kind between two fields."""

    kind: Kind
    source: str | None
    target: str | None
    other: str | None
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
        return len(self.terms.value)

    @property
    def item(self) -> list[FeatureName]:
        """The names of the features that pairs within an item are of."""
        return self.source if self.direction == "i2u" else self.target

    def parts(self, limit: int | None = None) -> list[Part]:
        """The largest terms, by absolute value; all by default."""
        terms = self.terms.take(np.arange(len(self))[:limit])
        columns = zip(
            terms.kind.tolist(),
            _named(terms.source, self.source),
            _named(terms.target, self.target),
            _named(terms.other, self.item),
            terms.value.tolist(),
            strict=True,
        )
        return [Part(KINDS[kind], *rest) for kind, *rest in columns]

    def rest(self, limit: int | None) -> float:
        """The sum of the terms that `parts` leaves out."""
        return 0.0 if limit is None else float(self.terms.value[limit:].sum())

    @cached_property
    def fields(self) -> list[FieldPart]:
        """The terms summed by kind and fields, largest first, by absolute value."""
        fields = list(dict.fromkeys(name.field for name in (*self.source, *self.target)))
        keys = np.stack(
            [
                self.terms.kind,
                _codes(self.terms.source, self.source, fields),
                _codes(self.terms.target, self.target, fields),
                _codes(self.terms.other, self.item, fields),
            ]
        )
        groups, group = np.unique(keys, axis=1, return_inverse=True)
        sums = np.bincount(group.ravel(), weights=self.terms.value, minlength=groups.shape[1])
        named = [*fields, None]  # for code -1
        found = [
            FieldPart(KINDS[kind], named[source], named[target], named[other], float(value))
            for (kind, source, target, other), value in zip(groups.T.tolist(), sums, strict=True)
        ]
        return sorted(found, key=lambda part: -abs(part.value))

    def to_dict(self, *, limit: int | None = None) -> dict[str, Any]:
        """The same as plain values, with at most `limit` parts."""
        return {
            "version": self.version,
            "direction": self.direction,
            "score": self.score,
            "parts": [part.to_dict() for part in self.parts(limit)],
            "rest": self.rest(limit),
            "fields": [dict(vars(part)) for part in self.fields],
        }


def explain(parts: Parts, direction: str, *, source: Given, target: Given) -> Explanation:
    """Split the score of a pair into its terms; see `Retriever.explain`."""
    chosen = find_direction(direction)
    first = _End.of(parts, chosen.source, source, where="source")
    second = _End.of(parts, chosen.target, target, where="target")
    terms = split_score(chosen, first.bag, second.bag)
    return Explanation(
        parts.bundle.version,
        direction,
        _score(chosen, first.vector, second.vector),
        terms.take(np.argsort(-np.abs(terms.value), kind="stable")),
        parts.feature_names.of(first.bag, first.packed, side=chosen.source),
        parts.feature_names.of(second.bag, second.packed, side=chosen.target),
    )


@dataclass(frozen=True, eq=False)
class _End:
    """A source or a target."""

    bag: Bag
    """In the order of the vocabulary, so that fields stand in one order in every explanation."""
    packed: Packed
    """The features it was encoded from."""
    vector: Floats
    """That is ranked: the stored one where there is one, [1 + d]."""

    @classmethod
    def of(cls, parts: Parts, side: Side, given: Given, *, where: str) -> _End:
        """Take what is given.

        Raises:
            QueryError: it is neither an id that the version has nor features of their types.
            BundleError: as `known_bags`.
        """
        if len(given) != 1 or not given.keys() <= {"id", "features"}:
            raise QueryError(
                f"{where}: expected either the id or the features of the {side}, received "
                f"{sorted(given)}"
            )
        if "features" in given:
            columns = {name: [value] for name, value in given["features"].items()}
            packed: Packed = parts.tower(side).pack(columns, size=1)
            vector = parts.tower(side)(packed)[0]
            if not np.isfinite(vector).all():
                raise QueryError(
                    f"{where}: expected features with a finite vector, received NaN or infinity; "
                    "check the values of the numeric features"
                )
            (bag,) = encode_bags(parts, side, packed)
            return cls(parts.feature_names.in_order(bag), packed, vector.astype(np.float64))
        catalogue = parts.catalogue(side)
        rows = catalogue.rows([given["id"]])
        if rows[0] < 0:
            raise QueryError(
                f"{catalogue.id_column}: version {parts.bundle.version} has no {side} "
                f"{given['id']!r}; explain by features instead"
            )
        (bag,), (packed,) = known_bags(parts, side, rows)
        vector = catalogue.vectors[rows[0]]
        return cls(parts.feature_names.in_order(bag), packed, vector.astype(np.float64))


def _score(direction: Direction, source: Floats, target: Floats) -> float:
    """Score two vectors as `towers.directions` does."""
    if not direction.is_similarity:
        item, user = (source, target) if direction.source == "item" else (target, source)
        return float(item[0] + user[1:] @ item[1:])
    lengths = np.linalg.norm(source[1:]) * np.linalg.norm(target[1:])
    return float(source[1:] @ target[1:] / lengths) if lengths else 0.0


def _named(places: NDArray[np.int64], names: list[FeatureName]) -> list[FeatureName | None]:
    """The feature at each place, None for -1."""
    return [names[place] if place >= 0 else None for place in places]


def _codes(
    places: NDArray[np.int64], names: list[FeatureName], fields: list[str]
) -> NDArray[np.int64]:
    """The number of each place's field among `fields`, -1 for place -1."""
    return np.array([*(fields.index(name.field) for name in names), -1])[places]
