"""Entry: one user or item that was put in or taken out, as a journal keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from towers.features.schema import Side

Id = int | str
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What an entry says, before the journal gives it a number and a time."""

    side: Side
    id: Id
    record: dict[str, Any] | None
    """What was put in: a row of the side's table, as plain JSON values. None: taken out."""


@dataclass(frozen=True, kw_only=True)
class Entry(Draft):
    """One change of one user or item."""

    seq: int
    """The number of the change: from 1, and larger than that of every change before it."""
    time: datetime
    """When it was written, with its time zone, by the server's clock; it is there to be read, and
    decides nothing."""

    @property
    def fingerprint(self) -> str:
        """64 bits (hex) that tell this entry from every other, in this journal or another."""
        said = [self.seq, self.time.isoformat(), self.side, self.id, self.record]
        return blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


def list_drafts(
    side: Side, *, id_column: str, upsert: Sequence[Record] = (), delete: Sequence[Id] = ()
) -> list[Draft]:
    """List what one request changes, its deletes first."""
    return [Draft(side=side, id=id, record=None) for id in delete] + [
        Draft(side=side, id=record[id_column], record=dict(record)) for record in upsert
    ]
