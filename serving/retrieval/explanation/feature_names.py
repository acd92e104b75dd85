"""FeatureNames: what the rows of the feature table stand for, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.retrieval.explanation.bag import Bag, Packed
from serving.search.index import Rows
from towers.packer import missing_marker
from towers.schema import Schema, Side, space_of
from towers.vocabulary import Buckets, Hashed, Scalar, Space, Tokens, Vocabulary


@dataclass(frozen=True)
class FeatureName:
    """One feature of a user or an item."""

    field: str
    """The feature's name; the history's for an item of a user's past."""
    token: str
    """Its token as text; a number; or the range of a bucket. Several tokens of one row: a list."""
    label: int | str | None
    """The id, where it is that of an item or a user, to look it up by."""
    known: bool
    """Whether training knew it; tokens that it did not know share a row."""
    x: float
    """Its value in the bag."""


class FeatureNames:
    """The names of a vocabulary's rows."""

    def __init__(self, vocabulary: Vocabulary, *, schema: Schema) -> None:
        """Turn the vocabulary round; its spaces are named as by `towers.schema.space_of`."""
        self._names = list(vocabulary.spaces)
        self._spaces = list(vocabulary.spaces.values())
        history = schema.history
        self._history = None if history is None else history.name
        self._past = None if history is None else space_of(history, side="user", schema=schema)
        self._ids = {f"user.{schema.id_input('user')}", f"item.{schema.id_input('item')}"}
        self._space_of = np.full(vocabulary.n_rows, -1, dtype=np.int64)
        self._place_of = np.full(vocabulary.n_rows, -1, dtype=np.int64)
        for number, space in enumerate(self._spaces):
            rows = _rows(space)
            self._space_of[rows] = number
            self._place_of[rows] = np.arange(len(rows))

    def fields_of(self, side: Side) -> Rows:
        """The numbers of the fields that a side has, in order."""
        has = [
            name.startswith(f"{side}.") or (side == "user" and name == self._past)
            for name in self._names
        ]
        return np.flatnonzero(has)

    def in_order(self, bag: Bag) -> Bag:
        """The same bag with its entries in order of the vocabulary: field by field."""
        return bag.take(np.lexsort((bag.rows, self._space_of[bag.rows])))

    def fields(self, bag: Bag) -> Rows:
        """The number of each entry's field, [n]; no two fields of one side have the same."""
        return self._space_of[bag.rows]

    def field(self, number: int, *, side: Side) -> str:
        """The name of a field of one side: its feature's."""
        owner, _, name = self._names[number].partition(".")
        return name if owner == side or self._history is None else self._history

    def of(self, bag: Bag, packed: Packed, *, side: Side) -> list[FeatureName]:
        """Name each entry of a bag, [n].

        Args:
            bag: of one user or item, as `in_order` gives it.
            packed: the features that it was encoded from.
            side: user or item.
        """
        names: list[FeatureName] = []
        fields = self.fields(bag)
        for number in dict.fromkeys(fields.tolist()):
            here = fields == number
            places, x = self._place_of[bag.rows[here]], bag.x[here]
            field = self.field(number, side=side)
            given = packed[field].ravel()
            given = given[given != missing_marker(given.dtype)]
            names += self._of_field(number, field, places, x, given=given)
        return names

    def _of_field(
        self, number: int, field: str, places: Rows, x: NDArray[np.float64], *, given: NDArray[Any]
    ) -> list[FeatureName]:
        """Name the entries of one field of one bag."""
        space = self._spaces[number]
        tokens: Sequence[Any]
        labels: Sequence[Any] = [None] * len(places)
        known = np.ones(len(places), dtype=np.bool_)
        if isinstance(space, Tokens):
            known = places < len(space.tokens)
            own = space.tokens[places[known]]
            others = _listed(given[~np.isin(given, own)])
            found = iter(own.tolist())
            tokens = [next(found) if one else others for one in known]
            if self._names[number] in self._ids:
                labels = [token if one else None for token, one in zip(tokens, known, strict=True)]
        elif isinstance(space, Hashed):
            texts = tf.constant(given, tf.string)
            hashed = tf.strings.to_hash_bucket_fast(texts, space.buckets).numpy()
            tokens = [_listed(given[hashed == place]) for place in places]
        elif isinstance(space, Scalar):
            tokens = [f"{value:g}" for value in given]
        else:
            tokens = [_range(space, int(place)) for place in places]
        return [
            FeatureName(field, str(token), label, bool(one), float(value))
            for token, label, one, value in zip(tokens, labels, known, x, strict=True)
        ]


def _rows(space: Space) -> Rows:
    """The rows of a space; of learned tokens, the last is the one for all others."""
    if isinstance(space, Tokens):
        return np.append(space.rows, space.oov_row)
    if isinstance(space, Scalar):
        return np.array([space.row])
    n = space.buckets if isinstance(space, Hashed) else len(space.boundaries) + 1
    return space.first_row + np.arange(n)


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
