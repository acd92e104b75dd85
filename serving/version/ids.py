"""IdTable: the ids of users or items by row, and their rows; no Python object is kept of an id."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
from numpy.typing import NDArray

from serving.search.index import Rows
from towers.features.values import MISSING_INTEGER, MISSING_STRING

Hash = Callable[[NDArray[Any]], NDArray[np.uint64]]
"""Answers ids [n], int64 or str objects, with numbers that are equal where the ids are."""

BLOCK = 2**16
"""Ids that are hashed at once, when the first is looked up."""


def hash_ids(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Hash ids [n]: texts by SipHash, integers by the finalizer of SplitMix64."""
    return pd.util.hash_array(ids, categorize=False)


class IdTable:
    """The ids of the users or the items of a version, all of them different.

    Rows are grouped by the hashes of their ids into as many buckets as there are ids, which takes
    8 bytes an id, or 16 from 2^31 ids on. A lookup compares the few ids of a bucket themselves.
    Integers that ascend need no buckets: they are searched as they are.
    """

    def __init__(self, ids: pa.Array, *, hash_ids: Hash = hash_ids) -> None:
        """Keep `ids` [n], integers or text without nulls; others become text."""
        kind = ids.type
        if pa.types.is_integer(kind):
            ids = ids.cast(pa.int64())
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            ids = ids.cast(pa.string())
        self.values: pa.Array = ids
        """The ids by row, [n] int64 or (large) string."""
        self._hash = hash_ids

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What NumPy calls an id: int64, or object for a str."""
        return np.dtype(np.int64 if pa.types.is_integer(self.values.type) else object)

    @property
    def missing_id(self) -> int | str:
        """What stands for no id."""
        return MISSING_INTEGER if self.dtype == np.int64 else MISSING_STRING

    def to_numpy(self) -> NDArray[Any]:
        """All ids by row, [n] int64 or str objects."""
        ids: NDArray[Any] = self.values.to_numpy(zero_copy_only=False)
        return ids

    def take(self, rows: Rows) -> NDArray[Any]:
        """The ids of `rows`, int64 or str objects in the same shape; `missing_id` for row -1."""
        is_row = rows >= 0
        if self.dtype == np.int64 and is_row.all():
            return self._integers[rows]
        ids = np.full(rows.shape, self.missing_id, dtype=self.dtype)
        if self.dtype == np.int64:
            ids[is_row] = self._integers[rows[is_row]]
        else:
            texts = self.values.take(pa.array(rows[is_row]))
            ids[is_row] = texts.to_numpy(zero_copy_only=False)
        return ids

    def find(self, ids: NDArray[Any]) -> Rows:
        """The row of each id [n], of the type `dtype`; -1 for one that is not here."""
        if self._is_ascending:
            return self._search(ids)
        if self.dtype == object:
            ids = _in_unicode(ids)
        starts, rows = self._buckets
        bucket = self._bucket_of(ids)
        first, counts = starts[bucket], starts[bucket + 1] - starts[bucket]
        places = np.repeat(np.arange(len(ids)), counts)
        ends = np.cumsum(counts)
        candidates = rows[np.arange(len(places)) + np.repeat(first - ends + counts, counts)]
        same = self._are_at(candidates, ids, places)
        found = np.full(len(ids), -1, dtype=np.int64)
        found[places[same]] = candidates[same]
        return found

    @cached_property
    def _integers(self) -> NDArray[np.int64]:
        integers: NDArray[np.int64] = self.values.to_numpy()
        return integers

    @cached_property
    def _is_ascending(self) -> bool:
        if self.dtype == object or not len(self):
            return False
        return bool((self._integers[1:] > self._integers[:-1]).all())

    @cached_property
    def _buckets(self) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
        """Where each bucket starts, and at the end the last one stops; and the rows of them all."""
        size = len(self)
        narrow = np.int32 if size <= np.iinfo(np.int32).max else np.int64
        buckets: NDArray[Any] = np.empty(size, dtype=narrow)
        for start in range(0, size, BLOCK):
            block = self.values.slice(start, BLOCK).to_numpy(zero_copy_only=False)
            buckets[start : start + BLOCK] = self._bucket_of(block)
        rows: NDArray[Any] = np.arange(size, dtype=narrow)
        flags = np.ones(size, dtype=np.bool_)
        grouped = scipy.sparse.csr_array((flags, (buckets, rows)), shape=(max(size, 1), size))
        return grouped.indptr, grouped.indices

    def _bucket_of(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The bucket of each id [n]."""
        return (self._hash(ids) % np.uint64(max(len(self), 1))).astype(np.int64)

    def _are_at(
        self, rows: NDArray[np.integer[Any]], ids: NDArray[Any], places: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each of `rows` [m] is that of the id at its place in `ids`."""
        if self.dtype == np.int64:
            flags: NDArray[np.bool_] = self._integers[rows] == ids[places]
            return flags
        wanted = pa.array(ids, self.values.type).take(pa.array(places))
        equal = pc.equal(self.values.take(pa.array(rows)), wanted)
        return np.asarray(pc.fill_null(equal, False))

    def _search(self, ids: NDArray[np.int64]) -> Rows:
        """Find integers among those that ascend; in their order, which spares the caches."""
        order = np.argsort(ids)
        rows = np.empty(len(ids), dtype=np.int64)
        rows[order] = np.searchsorted(self._integers, ids[order])
        rows[rows == len(self)] = 0
        return np.where(self._integers[rows] == ids, rows, -1)


def _in_unicode(ids: NDArray[Any]) -> NDArray[Any]:
    """Put None for texts that are no Unicode, with half a surrogate pair; no table has them."""
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        ids = np.array([None if _is_broken(id) else id for id in ids], dtype=object)
    return ids


def _is_broken(text: str) -> bool:
    """Whether UTF-8 cannot hold it."""
    return any("\ud800" <= character <= "\udfff" for character in text)
