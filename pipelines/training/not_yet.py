"""Say which items are not there yet for the users of a part that is held out by time."""

from __future__ import annotations

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS, Part, latest_times, there_from
from pipelines.data.prepare import Prepared
from pipelines.evaluation.left_out import NotYet


def not_yet(prepared: Prepared, part: Part, *, config: RunConfig) -> NotYet | None:
    """Which items come to be after a user's latest positive of a held-out part; None if not told.

    Nobody could have been recommended these, so that they take no places. What tells is the date in
    the table of items, which says nothing of how often an item will be chosen. A first interaction
    counts only where it came before that date: whoever asks later could have known of it.
    """
    if prepared.available is None or config.evaluation.items == "all":
        return None
    if config.split.by == "random":  # training then knows what came later, too
        return None
    return NotYet(
        there=there_from(prepared.available, prepared.interactions(*PARTS)),
        asked=latest_times(prepared.interactions(part)),
    )
