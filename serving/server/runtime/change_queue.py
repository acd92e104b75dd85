"""ChangeQueue: writes changes of users and items to the journal, and applies them in its order.

While the disk is idle, a change is written at once. While it is busy, changes wait, and all that
wait are written in the next transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving.retrieval.changes import Change
from serving.retrieval.fresh.entry import Id, Record, list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.retriever import Retriever
from serving.server.errors import OverloadedError, UnavailableError
from serving.server.runtime.batcher import Batcher
from serving.server.runtime.served_version import Served
from towers.features.schema import Side

MOST_WAITING = 64
"""The most changes that wait to be written or applied."""


@dataclass(frozen=True)
class Changed:
    """What a change did."""

    version: int
    """The version that answers with it."""
    inserted: int
    """Ids that were put in and were not there; `replaced` were."""
    replaced: int
    deleted: int
    """Ids that were taken out; `unknown` were not there."""
    unknown: int


class ChangeQueue:
    """Writes each change to the journal, and then applies it to the version that answers.

    The order is the same in the journal and in every version. A version that is being loaded gets
    the changes that the journal has and, just before it starts to answer, those written since.
    """

    def __init__(
        self, journal: Journal | None, *, batcher: Batcher, current: Callable[[], Served]
    ) -> None:
        """Apply changes to what `current` answers, on the thread of `batcher`."""
        self._journal, self._batcher, self._current = journal, batcher, current
        self._disk = Batcher(max_batch=MOST_WAITING, max_queue=MOST_WAITING, timeout_s=None)
        self._running: set[asyncio.Task[Changed]] = set()
        self._replayed = 0

    async def make(self, side: Side, *, upsert: Sequence[Record], delete: Sequence[Id]) -> Changed:
        """Check a change, write it, and apply it.

        Once it is written it is applied, even where the client does not wait for the answer.

        Raises:
            QueryError: it does not fit the version that answers.
            OverloadedError: too many wait.
            UnavailableError: no version is loaded, or there is no journal.
        """
        if self._journal is None:
            raise UnavailableError(
                "journal: expected a folder to keep changes in, but the server has none; start it "
                "with one"
            )
        if len(self._running) >= MOST_WAITING:
            raise OverloadedError(
                f"changes: expected at most {MOST_WAITING} to wait, and they do; ask again later, "
                "or for several changes at once"
            )
        served = self._current()
        check = partial(served.retriever.change, side, upsert=upsert, delete=delete)
        task = asyncio.create_task(self._make(self._journal, served, check))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _make(self, journal: Journal, served: Served, check: Callable[[], Change]) -> Changed:
        change = await self._batcher.alone(check)
        column = served.retriever.catalogue(change.side).id_column
        drafts = list_drafts(
            change.side, id_column=column, upsert=change.records, delete=change.removed
        )
        # Those that were written together go on in the order in which they were written, and the
        # batcher keeps that order: each version gets the changes as the journal has them.
        await self._disk.run(journal.append, drafts)
        return await self._batcher.alone(lambda: self._apply(served, change))

    def _apply(self, checked_by: Served, change: Change) -> Changed:
        """Apply a change to the version that answers now; on the batcher's thread."""
        served = self._current()
        if served is not checked_by:
            change = served.retriever.change(
                change.side, upsert=change.records, delete=change.removed
            )
        catalogue = served.retriever.catalogue(change.side)
        put = [record[catalogue.id_column] for record in change.records]
        removed = list(dict.fromkeys(change.removed))
        replaced = int(np.count_nonzero(catalogue.rows(put) >= 0))
        deleted = int(np.count_nonzero(catalogue.rows(removed) >= 0))
        served.retriever.apply(change)
        return Changed(
            served.version,
            inserted=len(put) - replaced,
            replaced=replaced,
            deleted=deleted,
            unknown=len(removed) - deleted,
        )

    def replay(self, retriever: Retriever) -> None:
        """Apply what the journal has to a version that is being prepared."""
        self._replayed = 0
        self.catch_up(retriever)

    def catch_up(self, retriever: Retriever) -> None:
        """Apply what was written since `replay`, or since the last call, to the same version.

        On the batcher's thread nothing is missing afterwards: what is written later is applied
        later.
        """
        if self._journal is not None:
            self._replayed = self._journal.replay(retriever, after=self._replayed).seq

    async def close(self) -> None:
        """Finish what has begun."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._disk.close()
