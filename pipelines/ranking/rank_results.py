"""RankResults: what came of training a ranker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RankResults:
    """What came of the job."""

    version: int
    """The version that was published: the one that it started from, with a ranker."""
    is_current: bool
    why: str
    """Why it is or is not used."""
    figures: Mapping[str, Any]
    """By part, validation and test, the figures of the ranker and of recall's own order."""
