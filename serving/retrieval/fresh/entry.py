"""Entry: one line of what came or went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, PositiveInt, StrictInt, StrictStr

from towers.schema import Side


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One user or item that was put in or taken out."""

    seq: PositiveInt
    """Grows from entry to entry."""
    time: AwareDatetime
    side: Side
    op: Literal["upsert", "delete"]
    id: StrictInt | StrictStr
    record: dict[str, Any] | None = None
    """Of an upsert: a flat row of the side's table, plain JSON values."""
