"""Notes which changes the servers' journals hold, before the tables of a version are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from serving.retrieval.fresh import database
from serving.retrieval.fresh.entry import Entry
from serving.retrieval.fresh.journal import FILE, OLD
from serving.retrieval.fresh.json_lines import read_json_lines
from serving.version.tables_read import TablesRead
from towers.errors import BundleError


def note_changes(journals: Sequence[Path]) -> TablesRead:
    """Note what journals hold now; call it before the tables are read.

    A version of these tables takes the place of the changes noted here, and of no others. Servers
    may write to the journals meanwhile.

    Args:
        journals: the folders; one that is not there, or has no journal yet, holds nothing.

    Raises:
        BundleError: a journal cannot be read.
    """
    entries = [entry for folder in journals for entry in _entries(folder)]
    return TablesRead(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        changes=frozenset(entry.fingerprint for entry in entries),
    )


def _entries(folder: Path) -> list[Entry]:
    """Read the entries of a journal that a server may be writing to."""
    path = folder / FILE
    if not path.exists():
        return read_json_lines(folder / OLD) if (folder / OLD).exists() else []
    try:
        with closing(database.connect(path)) as found:
            return database.read(found)
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None
