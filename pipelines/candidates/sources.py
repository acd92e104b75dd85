"""The queries of a batch: its users or items with their vectors, and the rows that are rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.candidates.features import (
    check_types,
    id_lists,
    ids_of,
    pack_table,
    without_null_texts,
)
from serving.retrieval.parts import Parts
from serving.search.index import Pairs, Rows, Vectors, no_pairs
from towers.errors import ConfigError
from towers.features.packer import Input
from towers.features.reading import Mask
from towers.features.schema import Side
from towers.features.values import missing_marker

LARGEST_BLOCK = 2**22
"""The most elements of a padded list feature that the tower embeds at once."""

REASONS = ("no id", "blocked", "unknown, and no features given", "a feature that cannot be read")
"""Reasons to reject a row; the first that applies is reported."""


@dataclass(frozen=True, eq=False)
class Sources:
    """The n users or items of a batch that can be answered, in order of the input."""

    ids: NDArray[Any]
    """[n] int64 or str objects."""
    rows: Rows
    """[n] rows of the version; -1 for an unknown id."""
    vectors: Vectors
    """[n, 1 + d]."""
    histories: Pairs
    """Items of the given histories of positives, as pairs of a place and an item row, from old to
    new."""
    seen: Pairs
    """Items of all given histories that count as seen, likewise."""
    rejected: pa.Table
    """`row` (the place in the batch), `id` and `reason` of the rejected rows."""
    described: Rows
    """The places of those whose vectors are of given features, ascending [m]."""
    packed: Mapping[str, NDArray[Any]]
    """The features of these, as `Tower.pack` gives them; empty where there are none."""

    @property
    def size(self) -> int:
        """The number of users or items, n."""
        return len(self.ids)


class SourceReader:
    """Reads batches of a table with an id in each row and, maybe, features."""

    def __init__(
        self, parts: Parts, side: Side, *, schema: pa.Schema, prefer_features: bool
    ) -> None:
        """Read tables of one schema.

        Raises:
            ConfigError: there is no column of ids.
            DataError: a column's type cannot be its feature's.
        """
        self._parts, self._side, self._prefer_features = parts, side, prefer_features
        self._catalogue = parts.catalogue(side)
        name = self._catalogue.id_column
        if name not in schema.names:
            raise ConfigError(
                f"{side}s: expected a column {name!r} of ids, as in training, received "
                f"{schema.names}; rename the column of ids"
            )
        inputs = parts.tower(side).inputs if len(schema.names) > 1 else {}
        histories = parts.history_columns if side == "user" else {}
        given = {name: column for name, column in histories.items() if column}
        given = {name: column for name, column in given.items() if column in schema.names}
        self._positives = [column for name, column in given.items() if name == parts.history]
        self._seen = [column for name, column in given.items() if name in parts.seen_histories]
        self._null_values = parts.null_values(side)
        self._id_input = parts.schema.id_input(side)
        self._columns = {input: input for input in inputs} | parts.schema.columns(side)
        for history, column in histories.items():
            if column is None:
                self._columns.pop(history, None)  # a column that no feature reads
        described = {self._columns[input] for input in inputs if input in self._columns} - {name}
        self._inputs: Mapping[str, Input] = inputs if described & set(schema.names) else {}
        is_integer = self._catalogue.id_dtype == np.int64
        own = Input(dtype=np.int64 if is_integer else object, is_id=True)
        check_types(schema, inputs={name: own}, columns={name: name})
        check_types(schema, inputs=self._inputs, columns=self._columns)
        wanted = {name} | (described if self._inputs else set())
        self.columns = [column for column in schema.names if column in wanted | set(given.values())]
        """The columns to read."""

    def __call__(self, table: pa.Table) -> Sources:
        """Find the sources of a batch [n rows].

        Raises:
            DataError: a column is of a type that its feature cannot have.
        """
        table = without_null_texts(table, self._null_values)
        name, dtype = self._catalogue.id_column, self._catalogue.id_dtype
        ids = ids_of(name, table[name], dtype)
        rows = self._catalogue.find(ids)
        packed, given, faulty = pack_table(
            table, inputs=self._inputs, columns=self._columns, id_input=self._id_input
        )
        is_described = given & ((rows < 0) | self._prefer_features)
        is_blocked = (rows < 0) & (self._catalogue.published.ids.find(ids) >= 0)
        flags = (
            ids == missing_marker(dtype),
            is_blocked,
            (rows < 0) & ~given,
            faulty & is_described,
        )
        out = np.logical_or.reduce(flags)
        keep = np.flatnonzero(~out)
        described = is_described[keep]
        given_features = {name: values[keep[described]] for name, values in packed.items()}
        return Sources(
            ids=ids[keep],
            rows=rows[keep],
            vectors=self._vectors(rows[keep], given_features, described=described),
            histories=self._histories(table, self._positives, keep=~out),
            seen=self._histories(table, self._seen, keep=~out),
            rejected=_rejected(ids, flags),
            described=np.flatnonzero(described),
            packed=given_features,
        )

    def _vectors(
        self, rows: Rows, packed: Mapping[str, NDArray[Any]], *, described: Mask
    ) -> Vectors:
        """The stored vectors, and those of the tower where a row gives features."""
        stored = self._catalogue.vectors
        vectors = stored[np.where(described, 0, rows)] if len(stored) else None
        places = np.flatnonzero(described)
        if vectors is not None and not len(places):
            return vectors
        encoded = self._encode(packed, size=len(places))
        if vectors is None or len(places) == len(rows):
            return encoded
        vectors[places] = encoded
        return vectors

    def _encode(self, packed: Mapping[str, NDArray[Any]], *, size: int) -> Vectors:
        """Embed packed features, in smaller batches where lists are long."""
        longest = max(values[:1].size for values in packed.values())
        block = max(1, LARGEST_BLOCK // max(longest, 1))
        tower = self._parts.tower(self._side)
        starts = range(0, max(size, 1), block)
        found = [tower({n: v[i : i + block] for n, v in packed.items()}) for i in starts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _histories(self, table: pa.Table, columns: Sequence[str], *, keep: Mask) -> Pairs:
        """The known items of some histories, for the rows that are kept."""
        items = self._parts.catalogue("item")
        pairs = [no_pairs()]
        for column in columns:
            given, lengths = id_lists(column, table[column], items.id_dtype)
            places = np.repeat(np.arange(len(lengths)), lengths)
            found = items.published.ids.find(given)
            fits = (found >= 0) & keep[places]
            pairs.append(((np.cumsum(keep) - 1)[places[fits]], found[fits]))
        return np.concatenate([p for p, _ in pairs]), np.concatenate([i for _, i in pairs])


def _rejected(ids: NDArray[Any], flags: tuple[Mask, ...]) -> pa.Table:
    """List the rows for which any flag is true, with the reason of the first such flag."""
    stacked = np.stack(flags)
    places = np.flatnonzero(stacked.any(axis=0))
    reasons = pa.array(REASONS).take(pa.array(stacked[:, places].argmax(axis=0)))
    texts = pa.array([None if flags[0][place] else str(ids[place]) for place in places])
    columns = {"row": places, "id": texts.cast(pa.string()), "reason": reasons}
    return pa.table(columns)
