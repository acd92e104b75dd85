"""Journal: the write-ahead log of fresh users and items, so that a restart forgets none.

A line is one request, with its checksum, and is on disk before the request is answered:

    {"crc32":"5f1c2a90","entries":[{"seq":1,"time":"...","side":"item","op":"upsert",...}]}

So a request is there whole or not at all, and only the last line can be torn by a crash. Of the
entries for one id the last counts; `serving.retrieval.fresh.replay` says in which versions.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from serving.atomic import locked, sync, write_text_atomic
from serving.retrieval.fresh.entry import Entry
from serving.retrieval.fresh.replay import Replayed, replay
from towers.errors import BundleError, QueryError
from towers.schema import Side

if TYPE_CHECKING:  # a retriever needs TensorFlow, the log itself does not
    from serving.retrieval.retriever import Retriever

FILE, LOCK = "fresh.jsonl", ".lock"
HEAD, MIDDLE = b'{"crc32":"', b'","entries":'
"""What stands in a line before and after the checksum, 8 hexadecimal digits."""
WASTE, SMALL = 4, 1000
"""A journal of more than `SMALL` entries, `WASTE` times those that count, is compacted."""

Id = int | str
Record = Mapping[str, Any]
logger = logging.getLogger(__name__)


_ENTRIES = TypeAdapter(tuple[Entry, ...])


class Journal:
    """The log that one server writes, and what of it counts, in memory. Safe to share by threads.

    It keeps the last entry of every id for good: versions come and go, and any may need it. To
    forget them all, remove the folder while no server runs.
    """

    def __init__(self, folder: Path) -> None:
        """Open the journal in `folder`, made if need be, and keep other servers out of it.

        Raises:
            BundleError: another server has it open, or it is damaged.
        """
        self.path = folder / FILE
        self._lock, self._is_torn = Lock(), False
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if not stack.enter_context(locked(folder / LOCK, wait=False)):
                raise BundleError(
                    f"{folder}: expected that no other server keeps its journal here, but one "
                    "does; stop it, or serve with a journal in another folder"
                )
            entries, self._size = _read(self.path)
            self._file = self.path.open("ab", buffering=0)
            stack.callback(self._close_file)
            self._truncate()
            sync(folder)
            sync(folder.parent)
            self._seq = self._written = 0
            self._live: dict[tuple[Side, Id], Entry] = {}
            self._count(entries)
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another server have the journal."""
        self._held.close()

    def append(
        self,
        side: Side,
        *,
        id_column: str,
        upsert: Sequence[Record] = (),
        delete: Sequence[Id] = (),
    ) -> int:
        """Write a change, its deletes first; it is on disk when this returns. Answers the last seq.

        It waits for the disk, and now and then for the whole journal to be written anew, so call
        it on a thread that answers no queries.

        Raises:
            QueryError: a record is not plain JSON; nothing was written.
            BundleError: the disk does not take it; nothing was written.
        """
        changes: list[dict[str, Any]] = [{"op": "delete", "id": id} for id in delete]
        changes += [
            {"op": "upsert", "id": record[id_column], "record": dict(record)} for record in upsert
        ]
        if not changes:
            return self._seq
        now = datetime.now(UTC)
        with self._lock:
            entries = [
                Entry(seq=self._seq + number, time=now, side=side, **change)
                for number, change in enumerate(changes, 1)
            ]
            self._write(_line(entries))
            self._count(entries)
            return self._seq

    def entries(self, *, after: int = 0) -> list[Entry]:
        """The entries that count, one an id, in order; only those with a seq above `after`."""
        with self._lock:
            return [entry for entry in self._live.values() if entry.seq > after]

    def replay(self, retriever: Retriever, *, after: int = 0) -> Replayed:
        """Apply to a version, by the rule of `replay`, what counts of the entries.

        Call it where the retriever may be changed. What is appended meanwhile is not in it: replay
        again, after the `seq` that this answers, until there is nothing left.
        """
        return replay(retriever, self.entries(after=after), after=after)

    def _close_file(self) -> None:
        self._file.close()

    def _write(self, line: bytes) -> None:
        """Put a line on disk, whole; what is there of a line that the disk did not take, goes."""
        try:
            if self._is_torn:
                self._truncate()
            self._is_torn = True
            taken = self._file.write(line)
            if taken != len(line):
                raise OSError(f"{taken} of {len(line)} bytes were taken")
            os.fsync(self._file.fileno())
            self._is_torn = False
        except OSError as error:
            with suppress(OSError):
                self._truncate()
            raise BundleError(
                f"{self.path}: could not be written ({error}), so nothing has changed; see whether "
                "the disk is full"
            ) from None
        self._size += len(line)

    def _truncate(self) -> None:
        """Cut off what does not belong to a whole line."""
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        self._is_torn = False

    def _count(self, entries: Sequence[Entry]) -> None:
        """Take in what was written; the last entry of an id counts."""
        for entry in entries:
            key = (entry.side, entry.id)
            self._live.pop(key, None)
            self._live[key] = entry
            self._seq = entry.seq
        self._written += len(entries)
        if self._written > max(SMALL, WASTE * len(self._live)):
            self._compact()

    def _compact(self) -> None:
        """Write the journal anew, with nothing but what counts; if the disk is full, later."""
        text = b"".join(_line([entry]) for entry in self._live.values())
        try:
            write_text_atomic(self.path, text.decode())
        except OSError as error:
            logger.warning("%s: could not be compacted: %s", self.path, error)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._written = len(self._live)


def _line(entries: Sequence[Entry]) -> bytes:
    """Write entries as one line of UTF-8.

    Raises:
        QueryError: a record is not plain JSON.
    """
    plain = [
        {name: value for name, value in vars(entry).items() if value is not None}
        | {"time": entry.time.isoformat()}
        for entry in entries
    ]
    try:
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        body = text.encode()
    except (TypeError, ValueError) as error:
        raise QueryError(
            f"record: expected plain JSON values, received one that is not: {error}"
        ) from None
    return b"".join([HEAD, _checksum(body), MIDDLE, body, b"}\n"])


def _parse(line: bytes) -> tuple[Entry, ...]:
    """Read what `_line` wrote.

    Raises:
        ValueError: it is not whole.
    """
    start = len(HEAD) + 8 + len(MIDDLE)
    body = line[start:-2]
    if line != b"".join([HEAD, _checksum(body), MIDDLE, body, b"}\n"]):
        raise ValueError("it differs from its checksum")
    return _ENTRIES.validate_json(body)


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _read(path: Path) -> tuple[list[Entry], int]:
    """Read the entries of a journal, and the size in bytes of its whole lines.

    Raises:
        BundleError: it is damaged elsewhere than in its last line.
    """
    entries: list[Entry] = []
    size = 0
    if not path.exists():
        return entries, size
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                found = _parse(line)
            except ValueError as error:
                if file.read(1):
                    raise BundleError(
                        f"{path}: line {number}: damaged: {error}; restore the file, or remove the "
                        "line, and with it the changes that it holds"
                    ) from None
                logger.warning(
                    "%s: line %d: torn, so the change that was being written is dropped; nobody "
                    "was told that it was made",
                    path,
                    number,
                )
                break
            entries += found
            size += len(line)
    return entries, size
