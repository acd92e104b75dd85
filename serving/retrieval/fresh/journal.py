"""Journal: keeps fresh users and items on disk, so that a restart forgets none of them.

The requests that wait are written in one transaction of a SQLite database
(`serving.retrieval.fresh.database`), which is on disk before any of them is answered. Decision 12
in `docs/decisions` says how it is kept safe.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import accumulate, chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Self

from serving.atomic import locked, move_file, sync
from serving.retrieval.fresh import database
from serving.retrieval.fresh.entry import Draft, Entry
from serving.retrieval.fresh.json_lines import read_json_lines
from serving.retrieval.fresh.replay import Replayed, replay
from towers.errors import BundleError, ReadOnlyError
from towers.features.schema import Side

if TYPE_CHECKING:  # a retriever needs TensorFlow, the journal itself does not
    from serving.retrieval.retriever import Retriever

FILE, LOCK = "fresh.sqlite", ".lock"
FOLDER = "journal"
"""Where changes are kept in a models directory, unless they are kept elsewhere."""
OLD, CONVERTED = "fresh.jsonl", "fresh.jsonl.converted"
"""The journal of earlier releases, and its name once it has been converted."""

logger = logging.getLogger(__name__)


class Journal:
    """The changes that one server writes, of which the last one for each id is kept.

    They are kept for good: versions come and go, and any of them may need the changes. To forget
    them all, remove the folder while no server runs. Any thread may call it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the journal in `folder`, made if need be, and keep other servers out of it.

        Args:
            folder: the folder.
            read_only: never write, and let another server write meanwhile; the journal must exist.

        Raises:
            BundleError: another server has it open, it is damaged, or it cannot be written.
            StorageError: the disk is full, so that it cannot be made.
        """
        self.path, self.read_only = folder / FILE, read_only
        self._lock = Lock()
        with ExitStack() as stack:
            if read_only:
                found = database.open_checked(self.path, writes=False)
            else:
                found = self._open_to_write(folder, stack)
            self._database = stack.enter_context(closing(found))
            if not read_only and (folder / OLD).exists():
                self._put_aside(folder / OLD)
            self._held = stack.pop_all()

    def _open_to_write(self, folder: Path, stack: ExitStack) -> sqlite3.Connection:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(locked(folder / LOCK, wait=False)):
                raise BundleError(
                    f"{folder}: expected that no other server keeps its journal here, but one "
                    "does; stop it, or serve with a journal in another folder"
                )
            if not self.path.exists():
                _create(folder)
            return database.open_checked(self.path)
        except OSError as error:
            raise BundleError(
                f"{folder}: expected a folder that fresh users and items can be written to, but: "
                f"{error.strerror}; make it writable, keep the journal in another folder, or serve "
                "to read only"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another server have the journal."""
        self._held.close()

    def append(self, requests: Sequence[Sequence[Draft]]) -> list[int]:
        """Write the changes of requests, all of them or none, and wait until they are on disk.

        Call it on a thread that answers no queries.

        Returns:
            The number of the last entry once each request is written.

        Raises:
            QueryError: a record is not plain JSON; nothing was written.
            ReadOnlyError: the journal is not to be written.
            StorageError: the disk does not take it; nothing was written.
        """
        if self.read_only:
            raise ReadOnlyError("journal: expected no changes, since the server only reads")
        now = datetime.now(UTC)
        drafts = list(chain.from_iterable(requests))
        with self._lock:
            last = database.last_seq(self._database)
            entries = [
                Entry(seq=seq, time=now, side=draft.side, id=draft.id, record=draft.record)
                for seq, draft in enumerate(drafts, last + 1)
            ]
            if entries:
                database.write(self.path, self._database, entries)
        return [last + n for n in accumulate(len(request) for request in requests)]

    def entries(self, *, after: int = 0) -> list[Entry]:
        """The last entry of each id, in the order they were written; only those above `after`."""
        with self._lock:
            return database.read(self._database, after=after)

    def deleted(self, side: Side) -> list[int | str]:
        """The ids of a side that were taken out last, and not put in since."""
        with self._lock:
            return database.read_deleted(self._database, side)

    def size(self) -> tuple[int, float]:
        """How many entries there are, and when the last was written: seconds since 1970, or NaN."""
        with self._lock:
            return database.read_size(self._database)

    def replay(self, retriever: Retriever, *, after: int = 0) -> Replayed:
        """Apply to a version the entries above `after` that count in it; see `replay`.

        Call it where the retriever may be changed. What is appended meanwhile is not in it: replay
        again, after the `seq` that this answers, until there is nothing left.
        """
        return replay(retriever, self.entries(after=after), after=after)

    def _put_aside(self, old: Path) -> None:
        """Rename the journal of an earlier release, which has been converted, and keep it.

        Raises:
            BundleError: an earlier release has written to it since.
        """
        if read_json_lines(old) != self.entries():
            raise BundleError(
                f"{old}: expected the changes that {FILE} has, but an earlier release has written "
                f"others since {FILE} was made; move away the file that you can do without"
            )
        move_file(old, old.with_name(CONVERTED))
        logger.warning("%s: converted to %s, and kept as %s", old, FILE, CONVERTED)


def _create(folder: Path) -> None:
    """Make the database, with the entries of an earlier release if there are some.

    It is made under another name and renamed once it is whole. So a database that is empty or cut
    off under its own name is always a damaged one.

    Raises:
        BundleError: the journal of the earlier release is damaged, or the disk is full.
    """
    beside = folder / f"{FILE}.new"
    for left in (beside, folder / f"{FILE}.new-journal"):
        left.unlink(missing_ok=True)
    old = folder / OLD
    database.create(beside, read_json_lines(old) if old.exists() else [])
    move_file(beside, folder / FILE)
    sync(folder.parent)
