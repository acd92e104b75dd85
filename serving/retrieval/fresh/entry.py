"""Entry: one user or item that was put in or taken out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from towers.schema import Side


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One change of one user or item."""

    seq: int
    """The number of the change: from 1, and larger than that of every change before it."""
    time: datetime
    """When it was written, with its time zone."""
    side: Side
    id: int | str
    record: dict[str, Any] | None
    """What was put in: a row of the side's table, as plain JSON values. None: taken out."""
