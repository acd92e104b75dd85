"""The SQLite database of a journal: made, checked, read and written.

It has one row for each id that was put in or taken out. Each row has a checksum, and the database
has the number of its rows and the sum of their checksums, so that a byte that was changed and a
row that is gone are found when it is opened.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from serving.retrieval.fresh.entry import Entry
from towers.errors import BundleError, QueryError, StorageError

SCHEMA = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, side TEXT NOT NULL, "
    "id NOT NULL, record TEXT, crc32 INTEGER NOT NULL, UNIQUE (side, id))",
    "CREATE TABLE total (entries INTEGER NOT NULL, crc32 INTEGER NOT NULL)",
    "CREATE TRIGGER count_added AFTER INSERT ON entries BEGIN "
    "UPDATE total SET entries = entries + 1, crc32 = crc32 + new.crc32; END",
    "CREATE TRIGGER count_removed AFTER DELETE ON entries BEGIN "
    "UPDATE total SET entries = entries - 1, crc32 = crc32 - old.crc32; END",
)
"""`id` has no type, so that the integer 1 and the text "1" are two ids."""

COLUMNS = "seq, time, side, id, record"
"""The columns of `entries` that the checksum is of."""

PROBE = "PRAGMA user_version = 0"
"""Writes the first page again as it is, by way of a rollback journal in the folder."""

BUSY_S = 30.0
"""How long one process waits until another has written."""

logger = logging.getLogger(__name__)


def create(path: Path, entries: Sequence[Entry]) -> None:
    """Make a database, whole and on disk before this returns; `path` must not exist.

    Raises:
        StorageError: the disk does not take it.
    """
    with _refused_by_disk(path), closing(connect(path)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            database.execute(statement)
        database.execute("INSERT INTO total VALUES (0, 0)")
        _insert(database, entries)


def open_checked(path: Path, *, writes: bool = True) -> sqlite3.Connection:
    """Open a database after all of it has been read and held against its checksums.

    A transaction that the server was writing when it stopped is undone, with a warning.

    Args:
        path: the database.
        writes: whether it will be written to; if not, another process may write meanwhile.

    Raises:
        BundleError: it is damaged, or cannot be written to though it is to be.
    """
    if writes and path.with_name(f"{path.name}-journal").exists():
        logger.warning(
            "%s: the server stopped while it wrote a change, so the change is left out; nobody "
            "was told that it was made",
            path,
        )
    try:
        database = connect(path)
        try:
            _check(database)
            if writes:
                _probe(path, database)
        except BaseException:
            database.close()
            raise
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise BundleError(
            f"{path}: damaged: {error}; restore the file from a copy, or move it away to go on "
            "without the changes that it holds"
        ) from None
    return database


def write(path: Path, database: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Put entries in the place of earlier ones for the same ids: all of them, or none.

    They are on disk when this returns. What is on disk though SQLite reports an error, which comes
    where only the last step of waiting for the disk fails, counts as written.

    Raises:
        QueryError: an id or a record is not plain JSON, or is an integer of more than 64 bits.
        StorageError: the disk does not take them.
    """
    try:
        with _refused_by_disk(path), database:
            database.execute("BEGIN IMMEDIATE")
            _insert(database, entries)
    except StorageError as error:
        if not _has(database, entries):
            raise
        logger.warning("%s: written, though the disk reported an error: %s", path, error)


def read(database: sqlite3.Connection, *, after: int = 0) -> list[Entry]:
    """Read the entries whose numbers are above `after`, in their order."""
    query = f"SELECT {COLUMNS} FROM entries WHERE seq > ? ORDER BY seq"
    return [
        Entry(
            seq=seq,
            time=datetime.fromisoformat(time),
            side=side,
            id=id,
            record=None if record is None else json.loads(record),
        )
        for seq, time, side, id, record in database.execute(query, (after,))
    ]


def read_deleted(database: sqlite3.Connection, side: str) -> list[int | str]:
    """The ids of a side that were taken out last, and not put in since."""
    query = "SELECT id FROM entries WHERE side = ? AND record IS NULL"
    return [id for (id,) in database.execute(query, (side,))]


def read_size(database: sqlite3.Connection) -> tuple[int, float]:
    """How many entries there are, and when the last was written: seconds since 1970, or NaN."""
    (n,) = database.execute("SELECT entries FROM total").fetchone()
    last = database.execute("SELECT time FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return int(n), math.nan if last is None else datetime.fromisoformat(last[0]).timestamp()


def last_seq(database: sqlite3.Connection) -> int:
    """The number of the last entry; 0 if there is none."""
    (seq,) = database.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()
    return int(seq)


def connect(path: Path) -> sqlite3.Connection:
    """Open a database that waits for the disk before a transaction ends.

    Raises:
        sqlite3.Error: that cannot be done.
    """
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    """Read all of a database, and hold every row against its checksum.

    Raises:
        sqlite3.Error: SQLite cannot read it.
        ValueError, TypeError: it is not what was written.
    """
    with database:  # one transaction, so that all of it is of one moment
        database.execute("BEGIN")
        _check_entries(database)


def _check_entries(database: sqlite3.Connection) -> None:
    (problem,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        raise ValueError(" ".join(str(problem).split()))
    statements = database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    if sorted(sql for (sql,) in statements) != sorted(SCHEMA):
        raise ValueError("its tables are not those of a journal")
    count = total = 0
    for *row, crc32 in database.execute(f"SELECT {COLUMNS}, crc32 FROM entries"):
        if _crc32(row) != crc32:
            raise ValueError(f"entry {row[0]} differs from its checksum")
        count, total = count + 1, total + crc32
    if database.execute("SELECT entries, crc32 FROM total").fetchall() != [(count, total)]:
        raise ValueError("it has other entries than were written")


def _probe(path: Path, database: sqlite3.Connection) -> None:
    """See whether the database can be written to, by writing what is there already.

    A full disk is logged only: changes are refused while it lasts, and questions are answered.

    Raises:
        BundleError: it cannot.
    """
    try:
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(PROBE)
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            logger.error("%s: the disk is full, so changes are refused until there is room", path)
            return
        raise BundleError(
            f"{path}: expected a file that can be written, but: {error}; make it and its folder "
            "writable, keep the journal in another folder, or serve to read only; where both are "
            "writable, the file is damaged"
        ) from None


def _has(database: sqlite3.Connection, entries: Sequence[Entry]) -> bool:
    """Whether entries are in the database; False where that cannot be read."""
    try:
        return bool(entries) and last_seq(database) == entries[-1].seq
    except sqlite3.Error:
        return False


def _insert(database: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    try:
        for entry in entries:
            record = None if entry.record is None else _to_json(entry.record)
            row = (entry.seq, entry.time.isoformat(), entry.side, entry.id, record)
            database.execute("DELETE FROM entries WHERE side = ? AND id = ?", row[2:4])
            database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (*row, _crc32(row)))
    except (TypeError, ValueError, OverflowError, sqlite3.ProgrammingError) as error:
        raise QueryError(
            f"record: expected plain JSON values, received one that is not: {error}"
        ) from None


@contextmanager
def _refused_by_disk(path: Path) -> Iterator[None]:
    """Turn what stops SQLite from writing into an error that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: could not be written ({error}), so nothing has changed; see whether the disk "
            "is full"
        ) from None


def _to_json(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, ensure_ascii=False)


def _crc32(row: Iterable[Any]) -> int:
    """The checksum of a row, in which the integer 1 differs from the text "1"."""
    return zlib.crc32(json.dumps(list(row)).encode())
