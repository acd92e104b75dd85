"""Replay: applies the entries of a journal to a version that is loaded, as far as they count in it.

- A delete counts in every version that has the id, until the id is upserted again.
- An upsert counts in every version that was published without the id. In one that was published
  with it, it counts unless the journal held it when the tables of the version were read: what the
  tables say of the id is then the newer. The version's own towers encode it.
- What does not fit the version (an unknown column, another type) is left out of it, logged and
  counted. It stays in the journal, for the next version or a rollback.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.retrieval.fresh.entry import Entry, Record
from towers.errors import QueryError
from towers.features.schema import Side

if TYPE_CHECKING:
    from serving.retrieval.retriever import Retriever

CHUNK = 1024
"""How many records are encoded at once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How many entries of a journal were applied to a version, and how many were not."""

    seq: int
    """The number of the last entry that was read."""
    upserted: int = 0
    deleted: int = 0
    superseded: int = 0
    """Upserts older than the version's tables, and deletes of what the version does not have."""
    skipped: int = 0
    """Entries that do not fit the version."""


def replay(retriever: Retriever, entries: Sequence[Entry], *, after: int = 0) -> Replayed:
    """Apply those of `entries` that count in the version.

    Args:
        retriever: the version.
        entries: at most one for each id, in the order of their numbers.
        after: the number of the entry before the first.
    """
    seq = entries[-1].seq if entries else after
    totals = dict.fromkeys(("upserted", "deleted", "superseded", "skipped"), 0)
    sides: tuple[Side, ...] = ("user", "item")
    for side in sides:
        chosen = [entry for entry in entries if entry.side == side]
        for start in range(0, len(chosen), CHUNK):
            for name, n in _replay(retriever, side, chosen[start : start + CHUNK]).items():
                totals[name] += n
    return Replayed(seq=seq, **totals)


def _replay(retriever: Retriever, side: Side, entries: Sequence[Entry]) -> dict[str, int]:
    """Apply some entries of one side; answers the numbers of `Replayed` but for `seq`."""
    read = retriever.parts.tables_read
    older = frozenset[str]() if read is None else read.changes
    catalogue = retriever.catalogue(side)
    fit = [entry for entry in entries if isinstance(entry.id, type(catalogue.missing_id))]
    ids = [entry.id for entry in fit]
    has, had = catalogue.rows(ids) >= 0, catalogue.published.rows(ids) >= 0
    gone = [entry.id for entry, here in zip(fit, has, strict=True) if entry.record is None and here]
    retriever.apply(retriever.change(side, delete=gone))
    fresh = [
        entry
        for entry, known in zip(fit, had, strict=True)
        if entry.record is not None and not (known and older and entry.fingerprint in older)
    ]
    refused = put_fitting(retriever, side, [entry.record or {} for entry in fresh])
    n_skipped = len(entries) - len(fit) + len(refused)
    if n_skipped:
        logger.warning(
            "version %d: %d %ss of the journal do not fit it and are left out: %s",
            retriever.version,
            n_skipped,
            side,
            refused[0] if refused else f"{catalogue.id_column} is of another type",
        )
    return {
        "upserted": len(fresh) - len(refused),
        "deleted": len(gone),
        "superseded": len(fit) - len(gone) - len(fresh),
        "skipped": n_skipped,
    }


def put_fitting(retriever: Retriever, side: Side, records: Sequence[Record]) -> list[str]:
    """Put in the records that fit the version; answers what is wrong with each of the others.

    They are tried together and, where that fails, in halves.
    """
    try:
        retriever.apply(retriever.change(side, upsert=records))
        return []
    except QueryError as error:
        if len(records) == 1:
            return [str(error)]
    middle = len(records) // 2
    halves = records[:middle], records[middle:]
    return [fault for half in halves for fault in put_fitting(retriever, side, half)]
