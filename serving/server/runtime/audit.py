"""Audit: the log of who has changed what."""

from __future__ import annotations

import logging
from typing import Any

from serving.server.access.tokens import WHO

_AUDIT = logging.getLogger("fm_recall.audit")
_AUDIT.setLevel(logging.INFO)


def audit(event: str, **facts: Any) -> None:
    """Log a change or a swap, whatever level the log has; `who` asked, where it is not given."""
    _AUDIT.info(event, extra={"who": WHO.get()} | facts)
