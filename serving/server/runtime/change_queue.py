"""ChangeQueue: writes changes of users and items to the journal, and applies them in its order.

While the disk is idle, a change is written at once. While it is busy, changes wait, and all that
wait are written in the next transaction.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from serving.retrieval.changes import Asked, Change, check_changes
from serving.retrieval.fresh.entry import Draft, Entry, Id, Record, list_drafts
from serving.retrieval.fresh.journal import Journal
from serving.retrieval.fresh.replay import replay
from serving.retrieval.retriever import Retriever
from serving.server.errors import OverloadedError, UnavailableError
from serving.server.runtime.batcher import Batcher
from serving.server.runtime.served_version import Served
from towers.errors import ReadOnlyError, StorageError
from towers.features.schema import SIDES, Side

LOG = logging.getLogger(__name__)

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
    left_out: int = 0
    """Of what was asked for, what is on disk and counts in the versions that it fits, but not in
    this one: it came between the check and the disk, and has other columns or ids."""


@dataclass(frozen=True)
class Check:
    """The check of changes as a function of a batch; equal for one version and side."""

    retriever: Retriever
    side: Side

    def __call__(self, several: Sequence[Asked]) -> list[Change]:
        """Check each change, and encode the records of all in one pass of the tower."""
        return check_changes(self.retriever.parts, self.side, several)


class ChangeQueue:
    """Writes each change to the journal, and then applies it to the version that answers.

    The order is the same in the journal and in every version. A version that is being loaded gets
    the changes that the journal has and, just before it starts to answer, those written since.
    """

    def __init__(
        self,
        journal: Journal | None,
        *,
        batcher: Batcher,
        current: Callable[[], Served],
        read_only: bool = False,
        max_unknown: int = 100_000,
    ) -> None:
        """Apply changes to what `current` answers, on the thread of `batcher`.

        With `read_only` there are none but those that another server has written to the journal.
        Of each side, at most `max_unknown` ids are remembered as taken out that are not there.
        """
        self._journal, self._batcher, self._current = journal, batcher, current
        self._read_only, self._max_unknown = read_only, max_unknown
        self._unknown: dict[Side, set[Id]] = {}
        """Ids that the journal has as taken out, and that were not there."""
        self._disk = Batcher(max_batch=MOST_WAITING, max_queue=MOST_WAITING, timeout_s=None)
        self._running: set[asyncio.Task[Changed]] = set()
        self._replayed: WeakKeyDictionary[Retriever, int] = WeakKeyDictionary()
        """The last entry that was applied to each version that is loaded."""

    async def make(self, side: Side, *, upsert: Sequence[Record], delete: Sequence[Id]) -> Changed:
        """Check a change, write it, and apply it.

        Once it is written it is applied, even where the client does not wait for the answer, and
        never answered as refused, whatever version answers by then.

        Raises:
            QueryError: it does not fit the version that answers.
            OverloadedError: too many wait.
            ReadOnlyError: the journal is not to be written.
            StorageError: the disk does not take it; nothing has changed.
            UnavailableError: no version is loaded, or there is no journal.
        """
        if self._read_only:
            raise ReadOnlyError(
                "expected no changes, since this server only reads; send them to "
                "the one that writes"
            )
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
        asked = Asked(upsert=upsert, delete=delete)
        task = asyncio.create_task(self._make(self._journal, served, side, asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _make(self, journal: Journal, served: Served, side: Side, asked: Asked) -> Changed:
        size = len(asked.upsert) + len(asked.delete)
        change = await self._batcher.together(Check(served.retriever, side), asked, size=size)
        await self._check_unknown(journal, served, change)
        column = served.retriever.catalogue(change.side).id_column
        drafts = list_drafts(
            change.side, id_column=column, upsert=change.records, delete=change.removed
        )
        # Those that were written together go on in the order in which they were written, and the
        # batcher keeps that order: each version gets the changes as the journal has them.
        try:
            seq = await self._disk.run(journal.append, drafts)
        except StorageError as error:
            LOG.error("journal not written", extra={"error": str(error)})  # names the file
            raise StorageError(
                "journal: the server's disk does not take the change, so nothing has changed; "
                "ask again once it has room"
            ) from None
        try:
            return await self._batcher.alone(lambda: self._apply(served, change, drafts, seq))
        except Exception:
            LOG.exception("a change that is on disk does not count in the version that answers")
            return Changed(self._current().version, 0, 0, 0, 0, left_out=len(drafts))

    async def _check_unknown(self, journal: Journal, served: Served, change: Change) -> None:
        """Refuse to remember ever more ids that are not there.

        Raises:
            StorageError: there would be too many.
        """
        catalogue = served.retriever.catalogue(change.side)
        unknown = set(catalogue.unknown(change.removed)) if change.removed else set[Id]()
        known = self._unknown.setdefault(change.side, set())
        if len(known | unknown) > self._max_unknown:  # some may be known by now
            count = partial(_list_unknown, journal, served.retriever, change.side)
            known = self._unknown[change.side] = await asyncio.to_thread(count)
        if unknown and len(known | unknown) > self._max_unknown:
            raise StorageError(
                f"ids: expected at most {self._max_unknown} {change.side}s to be remembered as "
                f"taken out that no version has, but {len(known)} are and {len(unknown)} came; "
                "take out what is there, or raise --max-unknown"
            )
        known |= unknown

    def _apply(
        self, checked_by: Served, change: Change, drafts: Sequence[Draft], seq: int
    ) -> Changed:
        """Apply a change that is on disk to the version that answers; on the batcher's thread."""
        served = self._current()
        if served is checked_by:
            return self._apply_checked(served, change)
        now = datetime.now(UTC)
        entries = [
            Entry(seq=number, time=now, side=draft.side, id=draft.id, record=draft.record)
            for number, draft in enumerate(drafts, seq - len(drafts) + 1)
        ]
        done = replay(served.retriever, entries)
        return Changed(
            served.version,
            inserted=done.upserted,
            replaced=0,
            deleted=done.deleted,
            unknown=done.superseded,
            left_out=done.skipped,
        )

    def _apply_checked(self, served: Served, change: Change) -> Changed:
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
        self._replayed.pop(retriever, None)
        self.catch_up(retriever)
        if self._journal is not None and not self._journal.read_only:
            for side in SIDES:
                self._unknown[side] = _list_unknown(self._journal, retriever, side)

    def catch_up(self, retriever: Retriever) -> None:
        """Apply what was written since `replay`, or since the last call, to the same version.

        On the batcher's thread nothing is missing afterwards: what is written later is applied
        later.
        """
        if self._journal is not None:
            after = self._replayed.get(retriever, 0)
            self._replayed[retriever] = self._journal.replay(retriever, after=after).seq

    async def follow(self) -> None:
        """Apply what another server has written, where this one only reads the journal."""
        if self._journal is not None and self._journal.read_only:
            served = self._current()
            try:
                await self._batcher.alone(partial(self.catch_up, served.retriever))
            except sqlite3.Error as error:
                LOG.error("journal not read", extra={"error": str(error)})

    async def close(self) -> None:
        """Finish what has begun."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._disk.close()


def _list_unknown(journal: Journal, retriever: Retriever, side: Side) -> set[Id]:
    """The ids that the journal has as taken out, and that a version never had."""
    catalogue = retriever.catalogue(side)
    fit = [id for id in journal.deleted(side) if isinstance(id, type(catalogue.missing_id))]
    return set(catalogue.unknown(fit)) if fit else set()
