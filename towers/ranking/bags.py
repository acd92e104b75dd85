"""Bags by field: which features of each field someone has, with their values x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


class Entries(NamedTuple):
    """Active features of n owners (users, items, moments or pairs), each [m]."""

    owners: tf.Tensor
    """Places of the owners, int64."""
    fields: tf.Tensor
    """Numbers of the fields, int64."""
    rows: tf.Tensor
    """Rows of the feature table, int64."""
    x: tf.Tensor
    """Real values, float32."""

    @classmethod
    def of_features(cls, parts: Sequence[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> Entries:
        """Join what `Encoder.fields` answers: the owners, rows and values of each field."""
        owners, rows, x = (tf.concat(one, axis=0) for one in zip(*parts, strict=True))
        sizes = [tf.size(one[0]) for one in parts]
        fields = tf.repeat(tf.range(len(parts), dtype=tf.int64), tf.stack(sizes))
        return cls(owners, fields, rows, x)


@dataclass(frozen=True, eq=False)
class FieldBags:
    """Entries of n owners in memory, by owner: owner i has [starts[i]:starts[i + 1]]."""

    starts: NDArray[np.int64]
    fields: NDArray[np.int64]
    rows: NDArray[np.int64]
    x: NDArray[np.float32]
    n_fields: int

    @property
    def n(self) -> int:
        """The number of owners."""
        return len(self.starts) - 1

    @classmethod
    def of(cls, entries: Entries, *, n: int, n_fields: int) -> FieldBags:
        """Keep the entries of n owners."""
        owners, fields, rows, x = (np.asarray(part) for part in entries)
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], np.arange(n + 1)).astype(np.int64)
        return cls(starts, fields[order], rows[order], x[order], n_fields)

    @classmethod
    def joined(cls, parts: Sequence[FieldBags]) -> FieldBags:
        """Put the owners of several one after another."""
        ends = np.cumsum([0, *(part.starts[-1] for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        columns: list[Any] = [
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("fields", "rows", "x")
        ]
        fields, rows, x = columns
        return cls(np.concatenate([*starts, ends[-1:]]), fields, rows, x, parts[0].n_fields)


class HeldBags(tf.Module):
    """The same as constants of a graph."""

    def __init__(self, bags: FieldBags) -> None:
        super().__init__()
        self.n_fields = bags.n_fields
        names = ("starts", "fields", "rows", "x")
        self._starts, self._fields, self._rows, self._x = (
            tf.Variable(getattr(bags, name), trainable=False, name=name) for name in names
        )

    def take(self, owners: tf.Tensor) -> Entries:
        """The entries of some owners [n], by their places in it."""
        starts = tf.convert_to_tensor(self._starts)
        spans = tf.ragged.range(tf.gather(starts, owners), tf.gather(starts, owners + 1))
        entry = spans.flat_values
        held = (tf.convert_to_tensor(one) for one in (self._fields, self._rows, self._x))
        return Entries(spans.value_rowids(), *(tf.gather(one, entry) for one in held))
