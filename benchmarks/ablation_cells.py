"""One cell of the ablation: the figures of a variant on a data set with a seed, kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from benchmarks.ablation_variants import K
from pipelines.config import RunConfig
from serving.atomic import write_text_atomic
from towers.typed import STRICT, parse

METRICS = tuple(f"{name}@{K}" for name in ("recall", "ndcg", "coverage", "popularity"))
SEGMENTS = ("all", "warm_users", "cold_users")
WITHOUT_A_TRACE = ("name", "data", "split", "index", "export")
"""Settings that no figure depends on, and where the tables are."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cell:
    """What one fit came to."""

    data: str
    variant: str
    seed: int
    settings: dict[str, Any]
    """What the fit was configured with, as plain values."""
    users: dict[str, int]
    """Users with test items, by segment; a segment without any is left out."""
    figures: dict[str, dict[str, float]]
    """`METRICS` by segment."""
    seconds: float
    """Of the fit, wall."""
    seconds_before: float
    """Of the rounds before and of mining with them; 0 where nothing is mined."""
    mined_share: float
    """Of the negatives that the loss counted, those that were mined."""

    @staticmethod
    def path(root: Path, *, data: str, variant: str, seed: int) -> Path:
        """Where the cell is kept."""
        return root / data / f"{variant}-{seed}.json"

    @classmethod
    def read(cls, path: Path) -> Cell:
        """Read what `write` wrote.

        Raises:
            ConfigError: the file holds something else.
        """
        return parse(cls, json.loads(path.read_text(encoding="utf-8")), where=str(path))

    def write(self, root: Path) -> None:
        """Keep the cell, all of it or nothing."""
        path = self.path(root, data=self.data, variant=self.variant, seed=self.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What a fit's outcome depends on, as JSON has it: without the tables' place and the export."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return {name: value for name, value in plain.items() if name not in WITHOUT_A_TRACE}
