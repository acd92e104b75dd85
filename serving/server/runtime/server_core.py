"""ServerCore: takes all that is asked of the versions of a models directory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import pandas as pd

from serving.retrieval.fresh.entry import Id, Record
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.parts import OpenIndex
from serving.retrieval.questions import Hits, Question
from serving.retrieval.retriever import Retriever
from serving.search.index import Rows, Vectors
from serving.server.errors import DeadlineError
from serving.server.runtime.audit import audit
from serving.server.runtime.batcher import Batcher
from serving.server.runtime.change_queue import Changed, ChangeQueue
from serving.server.runtime.metrics import Metrics
from serving.server.runtime.served_version import Encode, Packed, Served, Show
from serving.server.runtime.settings import ServerSettings
from serving.server.runtime.versions import Versions
from towers.features.schema import Side

A = TypeVar("A")

LOG = logging.getLogger(__name__)

SHOWN_IDS = 20
"""Ids of one change that the audit log names."""

SMALL, SMALL_BYTES = 16, 2**15
"""Sources, and bytes, of a request that are read and written at once, on the event loop."""

FEW = 256
"""Results, and ids to exclude, of a question that takes about as long as others with few."""


class Team(Protocol):
    """The other processes of the same server; see `serving.server.workers.team`."""

    async def start(self, changes: ChangeQueue, metrics: Metrics) -> None:
        """Meet them."""
        ...

    async def close(self) -> None:
        """Leave them."""
        ...

    async def make(self, side: Side, *, upsert: Sequence[Record], delete: Sequence[Id]) -> Changed:
        """Make a change that all of them answer with from now on."""
        ...

    async def figures(self) -> bytes:
        """The figures of all of them."""
        ...


class ServerCore:
    """One models directory, and the version of it that is loaded.

        async with ServerCore(Path("models"), settings=ServerSettings()) as core:
            await core.versions.settled()
            served = core.versions.current()
            question = served.retriever.ask("u2i", ids=[7], k=10)
            hits = await core.answer(served, question, model="u2i")

    Its methods are called on the event loop that entered it.
    """

    def __init__(
        self,
        models: Path,
        *,
        settings: ServerSettings,
        journal: Journal | None = None,
        index: OpenIndex | None = None,
        team: Team | None = None,
    ) -> None:
        """Serve from the models directory `models` once entered.

        Args:
            models: the models directory.
            settings: the limits.
            journal: keeps the changes.
            index: opens indexes that are not in a bundle.
            team: the other processes of the same server, if there are some.
        """
        self.models, self.settings = models, settings
        self._team = team
        self.metrics = Metrics()
        self._journal, self._index = journal, index
        self.versions = Versions(models, metrics=self.metrics)

    async def __aenter__(self) -> ServerCore:
        """Start to watch the models directory."""
        settings = self.settings
        self._batcher = Batcher(
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            timeout_s=settings.timeout_s,
            observe=self.metrics.computed,
        )
        self._changes = ChangeQueue(
            self._journal,
            batcher=self._batcher,
            current=self.versions.current,
            read_only=settings.read_only,
            max_unknown=settings.max_unknown,
        )
        self.versions.start(
            batcher=self._batcher,
            changes=self._changes,
            index=self._index,
            memory_bytes=settings.memory_bytes,
        )
        self.metrics.watch_queue(lambda: self._batcher.waiting)
        if self._journal is not None:
            journal = self._journal
            size, last = "Entries of the journal.", "When its last was written; seconds since 1970."
            self.metrics.watch("journal_entries", size, lambda: journal.size()[0])
            self.metrics.watch("journal_changed_seconds", last, lambda: journal.size()[1])
        if self._team is not None:
            await self._team.start(self._changes, self.metrics)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what has been asked, and free what is loaded."""
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        if self._team is not None:
            await self._team.close()
        await self._changes.close()
        await self._batcher.close()
        self.versions.close()

    async def prepare(self, function: Callable[[], A], *, size: int = 0, n_bytes: int = 0) -> A:
        """Call a function that reads or writes what a request of `size` sources brings.

        A large one is on a thread of its own, so that the event loop goes on to answer others; it
        is large by its sources, or by the bytes that are read or written.

        Raises:
            DeadlineError: it took longer than `timeout_s`.
            Exception: whatever `function` raises.
        """
        if size <= SMALL and n_bytes <= SMALL_BYTES:
            return function()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await asyncio.to_thread(function)
        except TimeoutError:
            raise DeadlineError(
                f"timeout: expected to read the request within {self.settings.timeout_s} s; send "
                "less in one request"
            ) from None

    async def answer(self, served: Served, question: Question, *, model: str) -> Hits:
        """Answer a question that `served` was asked, in a batch with others.

        Raises:
            OverloadedError: too many wait.
            DeadlineError: it took longer than `timeout_s`.
            UnavailableError: the server is shutting down.
            QueryError: the question cannot be answered.
        """
        began = time.perf_counter()
        hits = await self._batcher.run(
            served.retriever.answer, question, size=question.size, kind=_kind(question)
        )
        self._note(began, served, model=model, direction=question.direction.name)
        self.metrics.drift.note(served.retriever, question, hits)
        return hits

    async def encode(self, served: Served, side: Side, packed: Packed, *, model: str) -> Vectors:
        """Compute the vectors [n, 1 + d] of packed features, in a batch with others.

        Raises:
            OverloadedError, DeadlineError, UnavailableError: as `answer`.
        """
        began = time.perf_counter()
        size = len(next(iter(packed.values())))
        encode = Encode(served.retriever, side)
        vectors = await self._batcher.run(encode, packed, size=size)
        self._note(began, served, model=model, direction="")
        return vectors

    async def compute(
        self, served: Served, function: Callable[[], A], *, model: str, direction: str = ""
    ) -> A:
        """Call a function of a version between two batches, as changes are made there too.

        Raises:
            OverloadedError, DeadlineError, UnavailableError: as `answer`.
            Exception: whatever `function` raises.
        """
        began = time.perf_counter()
        found = await self._batcher.run(lambda several: [function() for _ in several], None)
        self._note(began, served, model=model, direction=direction)
        return found

    async def show(
        self, served: Served, side: Side, rows: Rows, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The columns of some rows of a table, between two batches, as changes are made there too.

        Raises:
            QueryError: there is no such column.
            OverloadedError, DeadlineError, UnavailableError: as `answer`.
        """
        names = None if columns is None else tuple(columns)
        return await self._batcher.run(Show(served.retriever, side, names), rows)

    async def look(self, function: Callable[[], A]) -> A:
        """Call a quick function between two batches, as changes are made there too.

        Raises:
            UnavailableError: the server is shutting down.
        """
        return await self._batcher.alone(function)

    def catch_up(self, retriever: Retriever, *, after: int = 0) -> int:
        """Apply the journal's entries above `after` to a version that does not answer.

        Any thread may call it.

        Returns:
            The last entry, to go on after.
        """
        if self._journal is None:
            return after
        return self._journal.replay(retriever, after=after).seq

    async def change(
        self, side: Side, *, upsert: Sequence[Record] = (), delete: Sequence[Id] = ()
    ) -> Changed:
        """Check a change, write it to the journal, apply it; the next answer sees it.

        A change that has been written is applied though its client goes away.

        Raises:
            QueryError: a record or an id is of no use to the current version; nothing has changed.
            OverloadedError: too many changes wait.
            UnavailableError: no version is loaded, or there is no journal.
        """
        make = self._changes.make if self._team is None else self._team.make
        changed = await make(side, upsert=upsert, delete=delete)
        ids = [
            record.get(self.versions.current().retriever.catalogue(side).id_column)
            for record in upsert
        ]
        audit(
            "changed",
            side=side,
            put=ids[:SHOWN_IDS],
            deleted=list(delete[:SHOWN_IDS]),
            n_put=len(ids),
            n_deleted=len(delete),
            version=changed.version,
        )
        self.metrics.changed(
            side, upserted=changed.inserted + changed.replaced, deleted=changed.deleted
        )
        return changed

    async def figures(self) -> bytes:
        """What is counted, by all processes of the server, in Prometheus' text format."""
        return self.metrics.text() if self._team is None else await self._team.figures()

    def _note(self, began: float, served: Served, *, model: str, direction: str) -> None:
        seconds = time.perf_counter() - began
        self.metrics.answered(seconds, model=model, direction=direction)
        if LOG.isEnabledFor(logging.DEBUG):
            facts = {"version": served.version, "model": model, "direction": direction}
            LOG.debug("answered", extra={**facts, "ms": round(seconds * 1000, 3)})

    async def _watch(self) -> None:
        """Load each version that becomes current."""
        while True:
            await self.versions.look()
            if self.versions.is_ready:
                await self._changes.follow()
                await asyncio.to_thread(self.metrics.drift.count)
            await asyncio.sleep(self.settings.poll_s)


def _kind(question: Question) -> str | None:
    """The kind of a question that takes as long as others of its direction: a plain one."""
    is_plain = question.where is None and question.diversity is None and not question.exclude_seen
    depth = question.width + question.exclude.shape[1]
    return question.direction.name if is_plain and question.size == 1 and depth <= FEW else None
