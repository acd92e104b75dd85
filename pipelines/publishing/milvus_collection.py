"""A collection in Milvus: one direction of a version, written, indexed, checked and renamed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.progress import Advance, Reporter
from pipelines.publishing.measure_recall import measure_recall
from serving.milvus.connection import MilvusClient, MilvusConnection, import_pymilvus
from serving.milvus.fields import (
    LONGEST_LIST,
    LONGEST_TEXT,
    ColumnField,
    column_fields,
    entities,
)
from serving.milvus.index import MilvusIndex, alias_name, collection_name
from serving.retrieval.catalogue import Catalogue
from serving.search.index import Vectors, search_rows
from serving.version.bundle import Bundle
from serving.version.embeddings import VECTOR, Embeddings
from towers.directions import Direction
from towers.errors import IndexUnavailableError, RecallGateError
from towers.features.schema import Side

BATCH_BYTES = 2**23
"""About how much one call writes; Milvus accepts at most 64 MiB."""

BATCH = 5000
"""The most users or items that one call writes."""

WRITE_S = 60.0
"""The time limit of a call that writes."""

WAIT_S = 24 * 3600.0
"""The time limit to build an index."""

LOOK_EVERY_S = 0.5
"""How often to ask whether the index is finished."""

SETTLE_S = 60.0
"""The time limit, after a collection is loaded, until searches use its finished index."""

HNSW = {"M": 32, "efConstruction": 400}
"""The graph index: links of each vector, and the candidates for them when it is built."""

FEW = 20_000
"""Up to this many vectors, a query is scored against all of them, which is exact and fast."""

N_QUERIES, K = 200, 100
"""The recall check: the number of sampled queries, and of neighbours of each."""


@dataclass(frozen=True)
class PublishedDirection:
    """One direction in Milvus."""

    direction: str
    collection: str
    n: int
    """The number of vectors."""
    recall: float | None
    """The share of the exact neighbours that it finds; None where it was not written anew."""
    unfiltered: tuple[str, ...]
    """Columns that Milvus cannot hold; the server evaluates filters on them itself."""


class CollectionWriter:
    """Writes the collection of one direction."""

    def __init__(
        self,
        milvus: MilvusConnection,
        bundle: Bundle,
        direction: Direction,
        *,
        sides: dict[Side, Embeddings],
        least_recall: float,
    ) -> None:
        """Take the connection, and the vectors and columns of the version by side.

        The collection must find `least_recall` of the exact neighbours.
        """
        self._milvus, self._direction, self._least_recall = milvus, direction, least_recall
        self._sources, self._targets = sides[direction.source], sides[direction.target]
        self._name = collection_name(bundle, direction, prefix=milvus.prefix)
        self._width = direction.project(self._targets.vectors[:1]).shape[1]
        self._fields = _stored_fields(self._targets)

    def write(self, existing: set[str], *, again: bool, reporter: Reporter) -> PublishedDirection:
        """Write, check and rename the collection, unless it exists under its final name.

        Args:
            existing: the names of all collections.
            again: write it even if it exists.
            reporter: shows progress.

        Raises:
            RecallGateError: its recall is too low; it keeps the name of a draft.
            IndexUnavailableError: Milvus cannot be reached, is too slow, or refuses.
        """
        measured = None
        if again or self._name not in existing:
            draft = f"{self._name}_new"
            if draft in existing:
                self._call(
                    draft, "drop", lambda client, t: client.drop_collection(draft, timeout=t)
                )
            total = len(self._targets.vectors)
            with reporter.stage(f"Milvus: {self._name}"):
                self._create(draft)
                with reporter.bar(self._direction.name, total, unit="vectors") as advance:
                    self._insert(draft, advance)
                self._build(draft)
                measured = self._check(draft)
                self._rename(draft, replaces=self._name in existing)
        stored = {field.column for field in self._fields}
        return PublishedDirection(
            direction=self._direction.name,
            collection=self._name,
            n=len(self._targets.vectors),
            recall=measured,
            unfiltered=tuple(c for c in self._targets.columns if c not in stored),
        )

    def _create(self, draft: str) -> None:
        """Create the empty collection, with its index."""

        def create(client: MilvusClient, timeout: float) -> None:
            index = client.prepare_index_params()
            kind, params = ("FLAT", {}) if len(self._targets.vectors) <= FEW else ("HNSW", HNSW)
            index.add_index(VECTOR, index_type=kind, metric_type="IP", params=params)
            client.create_collection(
                draft,
                schema=_schema(client, self._fields, width=self._width),
                index_params=index,
                consistency_level="Session",
                timeout=timeout,
            )

        self._call(draft, "create", create)

    def _insert(self, draft: str, advance: Advance) -> None:
        """Write all vectors, in batches."""
        step = max(1, min(BATCH, BATCH_BYTES // (4 * self._width + 100 * len(self._fields))))
        for start in range(0, len(self._targets.vectors), step):
            rows = slice(start, start + step)
            data = entities(
                self._fields,
                self._targets.ids.take(np.arange(*rows.indices(len(self._targets.ids)))),
                self._direction.project(self._targets.vectors[rows]),
                column=lambda name, rows=rows: self._targets.column(name)[rows],  # type: ignore[misc]
            )
            self._call(
                draft, "write", lambda client, t, data=data: client.insert(draft, data, timeout=t)
            )
            advance(len(data))

    def _build(self, draft: str) -> None:
        """Make Milvus store and index what was written, and load the collection.

        It is loaded after the index is finished: before, Milvus would search with a coarser one.

        Raises:
            IndexUnavailableError: it takes longer than `WAIT_S`.
        """
        self._call(draft, "flush", lambda c, t: c.flush(draft, timeout=t), timeout_s=WAIT_S)
        size, end = len(self._targets.vectors), time.monotonic() + WAIT_S
        while (n := self._call(draft, "index", lambda c, t: _indexed(c, draft, timeout=t))) < size:
            if time.monotonic() > end:
                raise IndexUnavailableError(
                    f"Milvus at {self._milvus.address}: {draft}: expected {size} vectors to be "
                    f"indexed within {WAIT_S:g} s, received {n}; see its log, and publish again"
                )
            time.sleep(LOOK_EVERY_S)
        self._call(
            draft, "load", lambda c, t: c.load_collection(draft, timeout=t), timeout_s=WAIT_S
        )

    def _check(self, draft: str) -> float:
        """Count the rows and compare a sample of answers with the exact ones.

        Raises:
            IndexUnavailableError: rows are missing.
            RecallGateError: the recall is too low.
        """
        size = len(self._targets.vectors)
        n = self._call(draft, "count", lambda client, t: _count(client, draft, timeout=t))
        if n != size:
            raise IndexUnavailableError(
                f"Milvus at {self._milvus.address}: {draft}: expected {size} vectors, "
                f"received {n}; publish again"
            )
        queries = self._direction.project(_sample(self._sources.vectors))
        if not size or not len(queries):
            return 1.0
        exact = search_rows(self._direction.project(self._targets.vectors), queries, K)
        index = MilvusIndex(
            self._milvus, draft, direction=self._direction, catalogue=Catalogue(self._targets)
        )
        k = exact[0].shape[1]
        end = time.monotonic() + SETTLE_S
        while True:
            found = index.ask(queries, k, limit=k)
            measured = float(measure_recall(exact, found).mean())
            if measured >= self._least_recall or time.monotonic() >= end:
                break
            time.sleep(LOOK_EVERY_S)
        if measured < self._least_recall:
            raise RecallGateError(
                f"{draft}: expected recall@{k} of {self._least_recall} over {len(queries)} sampled "
                f"queries, received {measured:.4f}; no alias has been switched; lower --recall"
            )
        return measured

    def _rename(self, draft: str, *, replaces: bool) -> None:
        """Give the collection its final name, by which it is found from now on, and load it."""
        if replaces:
            alias = alias_name(self._direction, prefix=self._milvus.prefix)
            self._milvus.call(f"free {alias}", lambda c, t: _free(c, alias, self._name, timeout=t))
            self._call(self._name, "drop", lambda c, t: c.drop_collection(self._name, timeout=t))
        self._call(draft, "rename", lambda c, t: c.rename_collection(draft, self._name, timeout=t))
        self._call(
            self._name,
            "load",
            lambda c, t: c.load_collection(self._name, timeout=t),
            timeout_s=WAIT_S,
        )

    def _call(self, name: str, task: str, function: Any, *, timeout_s: float = WRITE_S) -> Any:
        return self._milvus.call(f"{task} {name}", function, timeout_s=timeout_s)


def _stored_fields(targets: Embeddings) -> list[ColumnField]:
    """The fields of a collection: the id, and the columns whose values Milvus can hold."""
    fields = column_fields(targets)
    return [f for f in fields if f.is_id or f.holds(targets.column(f.column))]


def _schema(client: MilvusClient, fields: list[ColumnField], *, width: int) -> Any:
    """The fields as a schema of Milvus."""
    DataType = import_pymilvus().DataType  # noqa: N806 - as pymilvus calls it
    types = {
        "bool": DataType.BOOL,
        "int": DataType.INT64,
        "float": DataType.DOUBLE,
        "text": DataType.VARCHAR,
    }
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in fields:
        options: dict[str, Any] = {"description": field.column}
        if field.kind == "text":
            options["max_length"] = LONGEST_TEXT
        if field.is_list:
            options |= {"element_type": types[field.kind], "max_capacity": LONGEST_LIST}
        kind = DataType.ARRAY if field.is_list else types[field.kind]
        schema.add_field(field.name, kind, is_primary=field.is_id, **options)
        if field.known is not None:
            schema.add_field(field.known, DataType.BOOL, description=f"has {field.column}")
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=width)
    return schema


def _sample(vectors: Vectors) -> Vectors:
    """Sample the vectors of queries."""
    n = min(N_QUERIES, len(vectors))
    drawn: Vectors = vectors[np.random.default_rng(0).choice(len(vectors), n, replace=False)]
    return drawn


def _indexed(client: MilvusClient, name: str, *, timeout: float) -> int:
    """How many rows the index has."""
    return int(client.describe_index(name, VECTOR, timeout=timeout)["indexed_rows"])


def _count(client: MilvusClient, name: str, *, timeout: float) -> int:
    """The number of rows, including the latest writes."""
    found = client.query(
        name,
        filter="",
        output_fields=["count(*)"],
        consistency_level="Strong",
        timeout=timeout,
    )
    return int(found[0]["count(*)"])


def _free(client: MilvusClient, alias: str, collection: str, *, timeout: float) -> None:
    """Drop an alias that names a collection which is to be dropped; others stay."""
    if client.has_collection(alias, timeout=timeout):
        named = client.describe_alias(alias, timeout=timeout)["collection_name"]
        if named == collection:
            client.drop_alias(alias, timeout=timeout)
