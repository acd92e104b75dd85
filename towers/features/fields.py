"""Fields: which field each row of the feature table belongs to, on the side of users and of items.

A field is what one feature of the schema reads: the rows of its token space. What past items bring
to a history are fields of users too: their ids are one, and each of their features is another, as
in explanations. The same row then has a field on either side. The default user, who has no other
feature, needs no field of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towers.features.kinds import Trend
from towers.features.past_items import brought_rows
from towers.features.schema import Schema, Side, space_of
from towers.features.vocabulary import DEFAULT_USER, NEWCOMER, Vocabulary, rows_of

NO_FIELD = 0
"""The place that stands for rows that a side never has, or that have no vector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fields:
    """The fields of both sides, by their places in order of their names."""

    user: tuple[str, ...]
    """The names of the token spaces that users read."""
    item: tuple[str, ...]
    """The names of those that items read and that have vectors: all but a trend's."""
    of_user: NDArray[np.int16]
    """The place of each row's field among `user`, [n_rows]; `NO_FIELD` for other rows."""
    of_item: NDArray[np.int16]
    """The same among `item`."""

    def count(self, side: Side) -> int:
        """How many fields a side has."""
        return len(self.user if side == "user" else self.item)

    def of(self, side: Side) -> NDArray[np.int16]:
        """The places of the rows' fields on a side, [n_rows]."""
        return self.of_user if side == "user" else self.of_item

    @classmethod
    def build(cls, schema: Schema, vocabulary: Vocabulary) -> Fields:
        """Find the fields of a schema in a vocabulary of it."""
        trends = {
            space_of(one, side="item", schema=schema)
            for one in schema.item.features
            if isinstance(one, Trend)
        }
        spaces = vocabulary.spaces
        items = sorted(name for name in spaces if name.startswith("item.") and name not in trends)
        is_brought = np.zeros(vocabulary.n_rows, dtype=np.bool_)
        for history in schema.histories:
            if history.vectors == "shared":
                is_brought |= brought_rows(history, schema, vocabulary)
        users = sorted(name for name in spaces if name.startswith("user."))
        users = [name for name in users if name not in {DEFAULT_USER, NEWCOMER}]
        users += [name for name in items if is_brought[rows_of(spaces[name])].any()]
        return cls(
            user=tuple(users),
            item=tuple(items),
            of_user=_places(users, vocabulary),
            of_item=_places(items, vocabulary),
        )


def _places(names: list[str], vocabulary: Vocabulary) -> NDArray[np.int16]:
    """The place of each row's space among some, [n_rows]."""
    places = np.full(vocabulary.n_rows, NO_FIELD, dtype=np.int16)
    for place, name in enumerate(names):
        places[rows_of(vocabulary.spaces[name])] = place
    return places
