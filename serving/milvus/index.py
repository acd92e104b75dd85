"""MilvusIndex: one direction of a version, searched in Milvus.

A collection holds the vectors of a direction's targets by their ids, with the columns of their
table. Which ids there are, and their vectors, the catalogue says: what a search brings is scored by
these, and what the catalogue does not have is left out. So what another server writes to the same
collection can hide a target, or change what a filter matches, and never makes a wrong score.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from serving.milvus.connection import MilvusClient, MilvusConnection
from serving.milvus.fields import column_fields, entities
from serving.milvus.filters import any_of, expression
from serving.retrieval.catalogue import Catalogue
from serving.retrieval.parts import OpenIndex
from serving.search.filters import Filter
from serving.search.index import Found, Index, Rows, Vectors, check_queries, search_rows
from serving.version.bundle import Bundle
from towers.directions import Direction
from towers.errors import IndexUnavailableError

LOG = logging.getLogger(__name__)

DEEPEST = 16_384
"""Results of a query in Milvus at most; above it, all vectors are scored here."""

SPARE = 10
"""How many more than asked for are searched, for those that the catalogue does not have."""

MOST_RESULTS = 200_000
"""Results of all queries of a call at most."""

LEAST_EFFORT = 1024
"""Candidates that HNSW looks at for a query, at least."""

EFFORT = 8
"""Candidates that HNSW looks at for each result that is asked for, up to what Milvus allows."""

BATCH = 1000
"""Users or items that are written or deleted with a call at most."""

LOAD_S = 600.0
"""How long Milvus may take to load a collection."""


class MilvusIndex:
    """A `LiveIndex` and a `FilteringIndex`. What cannot be written is kept, for the next search."""

    def __init__(
        self,
        milvus: MilvusConnection,
        collection: str,
        *,
        direction: Direction,
        catalogue: Catalogue,
    ) -> None:
        """Search `collection`, which `fm-recall publish` wrote.

        Args:
            milvus: where it is.
            collection: its name.
            direction: of the index.
            catalogue: of the targets; a row that is put is in it already.

        Raises:
            IndexUnavailableError: there is no such collection, or Milvus is away or too slow.
        """
        self._milvus, self._collection = milvus, collection
        self._direction, self._catalogue = direction, catalogue
        self._width = direction.project(catalogue.vectors[:1]).shape[1]
        self._pending: dict[int, Vectors | None] = {}
        """What is to be written, by row; None is to be deleted."""
        self._lock = Lock()
        stored = self._open()
        fields = column_fields(catalogue.published)
        self._stored = [field for field in fields if field.is_id or field.name in stored]
        self._filterable = {field.column: field for field in self._stored}
        """Less those with a value that could not be written; filters on them are evaluated here."""

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return self._catalogue.n_present

    def search(self, queries: Vectors, k: int) -> Found:
        """Find min(k, size) rows of high inner products; see `Index.search`.

        Raises:
            QueryError: as `Index.search`.
            IndexUnavailableError: Milvus is away or too slow.
        """
        check_queries(queries, k, width=self._width)
        k = min(k, self.size)
        rows, scores = _nothing(len(queries), k)
        short, limit = np.arange(len(queries)), min(k + SPARE, DEEPEST)
        while len(short) and 0 < k <= limit:
            rows[short], scores[short] = self.ask(queries[short], k, limit=limit)
            short = short[rows[short, -1] < 0]
            limit = min(4 * limit, DEEPEST) if limit < min(DEEPEST, self.size + SPARE) else 0
        if len(short) and k:
            present = np.flatnonzero(self._catalogue.is_present)
            corpus = self._direction.project(self._catalogue.vectors[present])
            places, scores[short] = search_rows(corpus, queries[short], k)
            rows[short] = present[places]
        return rows, scores

    def filtered(self, where: Filter) -> Index | None:
        """The index of what matches; None where Milvus cannot tell. See `FilteringIndex`."""
        text = expression(where, self._filterable)
        return None if text is None else _Filtered(self, text)

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """Add or replace vectors, with their columns in the catalogue; see `LiveIndex.put`."""
        self._change(dict(zip(rows.tolist(), vectors, strict=True)))

    def remove(self, rows: Rows) -> None:
        """Let rows no longer be found; see `LiveIndex.remove`."""
        self._change(dict.fromkeys(rows.tolist()))

    def ask(self, queries: Vectors, k: int, *, limit: int, where: str = "") -> Found:
        """Find k rows that the catalogue has among the `limit` best in Milvus.

        Returns:
            Rows [n, k] and scores; -1 and -inf where there were no more.

        Raises:
            IndexUnavailableError: Milvus is away or too slow.
        """
        self._flush()
        rows, scores = _nothing(len(queries), k)
        step = max(1, MOST_RESULTS // limit)
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            for place, hits in enumerate(self._call(block, limit, where), start=start):
                found = self._rows([hit.id for hit in hits])
                found = found[found >= 0]
                corpus = self._direction.project(self._catalogue.vectors[found])
                exact = corpus @ queries[place]
                order = np.lexsort((found, -exact))[:k]
                rows[place, : len(order)], scores[place, : len(order)] = found[order], exact[order]
        return rows, scores

    def _call(self, queries: Vectors, limit: int, where: str) -> Any:
        effort = max(LEAST_EFFORT, min(EFFORT * limit, 2 * DEEPEST))
        return self._milvus.call(
            f"search {self._collection}",
            lambda client, timeout: client.search(
                self._collection,
                data=list(queries),
                filter=where,
                limit=limit,
                output_fields=[self._stored[0].name],
                search_params={"metric_type": "IP", "params": {"ef": effort}},
                consistency_level="Session",
                timeout=timeout,
            ),
        )

    def _rows(self, ids: list[Any]) -> Rows:
        return self._catalogue.find(np.array(ids, dtype=self._catalogue.id_dtype))

    def _open(self) -> set[str]:
        """Have the collection loaded; answers the names of its fields."""

        def find(client: MilvusClient, timeout: float) -> set[str] | None:
            if not client.has_collection(self._collection, timeout=timeout):
                return None
            described = client.describe_collection(self._collection, timeout=timeout)
            return {field["name"] for field in described["fields"]}

        stored = self._milvus.call(f"find {self._collection}", find)
        if stored is None:
            raise IndexUnavailableError(
                f"Milvus at {self._milvus.address}: expected the collection {self._collection}, "
                "received none; write it by: fm-recall publish MODELS --to milvus --uri "
                f"{self._milvus.address}"
            )
        self._milvus.call(
            f"load {self._collection}",
            lambda client, timeout: client.load_collection(self._collection, timeout=timeout),
            timeout_s=LOAD_S,
        )
        return stored

    def _change(self, changes: dict[int, Vectors | None]) -> None:
        """Note changes and write them; where that fails, the next search does it first."""
        with self._lock:
            self._pending |= changes
        try:
            self._flush()
        except IndexUnavailableError as error:
            waiting = len(self._pending)
            LOG.warning("changes wait for Milvus", extra={"n": waiting, "error": str(error)})

    def _flush(self) -> None:
        """Write what is pending, in batches; what is written is no longer pending."""
        if not self._pending:
            return
        with self._lock:
            for batch in _batches(list(self._pending)):
                gone = [row for row in batch if self._pending[row] is None]
                if gone:
                    self._delete(gone)
                put = [row for row in batch if self._pending[row] is not None]
                if put:
                    self._upsert(put)
                for row in batch:
                    del self._pending[row]

    def _delete(self, rows: list[int]) -> None:
        """Delete rows by their ids; one that cannot be named stays, and is left out when found."""
        where = any_of(self._stored[0], self._catalogue.ids(np.array(rows)).tolist())
        if where is not None:
            self._milvus.call(
                f"delete from {self._collection}",
                lambda client, timeout: client.delete(
                    self._collection, filter=where, timeout=timeout
                ),
            )

    def _upsert(self, rows: list[int]) -> None:
        """Write rows with their columns; a value that Milvus cannot hold as a missing one."""
        at = np.array(rows, dtype=np.int64)
        frame = self._catalogue.show(at)
        values: dict[str, pa.Array] = {}
        for field in self._stored[1:]:
            name = field.column
            type = self._catalogue.published.column(name).type
            values[name] = pa.Array.from_pandas(frame[name], type=type)
            if not field.holds(values[name]):
                values[name] = pa.nulls(len(rows), type)
                self._filterable.pop(name, None)
        vectors = [self._pending[row] for row in rows]
        data = entities(
            self._stored,
            self._catalogue.ids(at),
            np.stack([vector for vector in vectors if vector is not None]),
            column=values.__getitem__,
        )
        self._milvus.call(
            f"upsert to {self._collection}",
            lambda client, timeout: client.upsert(self._collection, data=data, timeout=timeout),
        )


class _Filtered:
    """What of a MilvusIndex matches an expression."""

    def __init__(self, whole: MilvusIndex, where: str) -> None:
        self._whole, self._where = whole, where

    @property
    def size(self) -> int:
        """How many vectors the whole has."""
        return self._whole.size

    def search(self, queries: Vectors, k: int) -> Found:
        """Find up to k rows that match; -1 and -inf pad."""
        k = min(k, self.size)
        if k > DEEPEST or not len(queries) or not k:
            return _nothing(len(queries), k)
        limit = min(k + SPARE, DEEPEST)
        return self._whole.ask(queries, k, limit=limit, where=self._where)


def indexes_in(milvus: MilvusConnection) -> OpenIndex:
    """Have a retriever search its directions in Milvus."""

    def open_index(bundle: Bundle, direction: Direction, catalogue: Catalogue) -> MilvusIndex:
        name = collection_name(bundle, direction, prefix=milvus.prefix)
        return MilvusIndex(milvus, name, direction=direction, catalogue=catalogue)

    return open_index


def collection_name(bundle: Bundle, direction: Direction, *, prefix: str) -> str:
    """The name of the collection of a direction: its version, and the content of its vectors."""
    path = bundle.users if direction.target == "user" else bundle.items
    digest = bundle.manifest.files[path.name].sha256[:8]
    return f"{alias_name(direction, prefix=prefix)}_v{bundle.version}_{digest}"


def alias_name(direction: Direction, *, prefix: str) -> str:
    """The name by which others find the direction's current collection."""
    return f"{prefix}_{direction.name}"


def version_in(name: str, direction: Direction, *, prefix: str) -> int | None:
    """The version of a finished collection of a direction; None for any other name."""
    alias = re.escape(alias_name(direction, prefix=prefix))
    found = re.fullmatch(rf"{alias}_v([0-9]+)_[0-9a-f]{{8}}", name)
    return int(found[1]) if found else None


def _batches(rows: list[int]) -> Iterator[list[int]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _nothing(n: int, k: int) -> Found:
    """Lists [n, k] of no rows."""
    return np.full((n, k), -1, dtype=np.int64), np.full((n, k), -np.inf, dtype=np.float32)
