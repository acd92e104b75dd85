"""FeatureNames: what the rows of the feature table stand for, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.search.index import Rows
from towers.features.schema import Schema, Side, space_of
from towers.features.values import missing_marker
from towers.features.vocabulary import (
    Buckets,
    Coordinates,
    Hashed,
    Scalar,
    Tokens,
    Vocabulary,
    rows_of,
)

NOTHING = np.empty(0, dtype=object)


@dataclass(frozen=True)
class FeatureName:
    """One feature of a user or an item."""

    field: str
    """The feature's name; the history's for an item of a user's past, and `history.genres` and so
    on for what the past items bring."""
    token: str
    """Its token as text; a number; or the range of a bucket. Several tokens of one row: a list."""
    label: int | str | None
    """The id, where it is that of an item or a user, to look it up by."""
    known: bool
    """Whether training knew it; tokens that it did not know share a row."""
    x: float
    """Its value."""

    def __str__(self) -> str:
        return f"{self.field}: {self.token}{'' if self.known else ' (unknown)'}"


class FeatureNames:
    """The names of a vocabulary's rows."""

    def __init__(self, vocabulary: Vocabulary, *, schema: Schema) -> None:
        """Turn the vocabulary round; its spaces are named as by `schema.space_of`."""
        self._names = list(vocabulary.spaces)
        self._spaces = list(vocabulary.spaces.values())
        shared = [one.name for one in schema.histories if one.vectors == "shared"]
        self._history = shared[0] if shared else None
        self._ids = {f"user.{schema.id_input('user')}", f"item.{schema.id_input('item')}"}
        self._ids |= {space_of(one, side="user", schema=schema) for one in schema.histories}
        self._space_of = np.full(vocabulary.n_rows, -1, dtype=np.int64)
        self._place_of = np.full(vocabulary.n_rows, -1, dtype=np.int64)
        for number, space in enumerate(self._spaces):
            rows = rows_of(space)
            self._space_of[rows] = number
            self._place_of[rows] = np.arange(len(rows))

    def order(self, rows: Rows) -> Rows:
        """The order that puts rows [n] field by field, as the vocabulary has the fields."""
        return np.lexsort((rows, self._space_of[rows]))

    def fields(self, rows: Rows) -> Rows:
        """The numbers of the fields of rows [n]; no two fields of one side have the same."""
        return self._space_of[rows]

    def field(self, number: int, *, side: Side) -> str:
        """The name of a field of one side: its feature's.

        Of what the items of a history bring, their ids are the history, and others `history.genres`
        and so on.
        """
        owner, _, name = self._names[number].partition(".")
        if owner == side or self._history is None:
            return name
        return self._history if self._names[number] in self._ids else f"{self._history}.{name}"

    def of(
        self, rows: Rows, x: NDArray[np.float64], *, packed: Mapping[str, NDArray[Any]], side: Side
    ) -> list[FeatureName]:
        """Name the active features of a user or item.

        Args:
            rows: theirs, [n], as `order` puts them.
            x: their values, [n].
            packed: the features that they were encoded from.
            side: user or item.
        """
        names: list[FeatureName] = []
        fields = self.fields(rows)
        for number in dict.fromkeys(fields.tolist()):
            here = fields == number
            field = self.field(number, side=side)
            given = packed.get(field, NOTHING).ravel()  # past items are given by their ids alone
            given = given[given != missing_marker(given.dtype)]
            names += self._of_field(number, field, self._place_of[rows[here]], x[here], given=given)
        return names

    def _of_field(
        self, number: int, field: str, places: Rows, x: NDArray[np.float64], *, given: NDArray[Any]
    ) -> list[FeatureName]:
        """Name the active features of one field."""
        space = self._spaces[number]
        tokens: Sequence[Any]
        labels: Sequence[Any] = [None] * len(places)
        known = np.ones(len(places), dtype=np.bool_)
        if isinstance(space, Tokens):
            known = places < len(space.tokens)
            own = space.tokens[places[known]]
            others = _listed(given[~np.isin(given, own)]) or "others"
            found = iter(own.tolist())
            tokens = [next(found) if one else others for one in known]
            if self._names[number] in self._ids:
                labels = [token if one else None for token, one in zip(tokens, known, strict=True)]
        elif isinstance(space, Hashed):
            texts = tf.constant(given, tf.string)
            hashed = tf.strings.to_hash_bucket_fast(texts, space.buckets).numpy()
            tokens = [_listed(given[hashed == place]) or f"bucket {place}" for place in places]
        elif isinstance(space, Scalar):
            tokens = [f"{value:g}" for value in (given if len(given) else x)]
        elif isinstance(space, Coordinates):
            tokens = [f"{space.size} numbers"] * len(places)
        else:
            tokens = [_range(space, int(place)) for place in places]
        return [
            FeatureName(field, str(token), label, bool(one), float(value))
            for token, label, one, value in zip(tokens, labels, known, x, strict=True)
        ]


def _listed(tokens: NDArray[Any]) -> str:
    """Write tokens, each once."""
    return ", ".join(dict.fromkeys(str(token) for token in tokens))


def _range(space: Buckets, place: int) -> str:
    """Write the numbers of one bucket."""
    ends = space.boundaries
    if not ends:
        return "any"
    if place == 0:
        return f"< {ends[0]:g}"
    if place == len(ends):
        return f">= {ends[-1]:g}"
    return f"{ends[place - 1]:g} to {ends[place]:g}"
