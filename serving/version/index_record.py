"""What a manifest says about the indexes of a version."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from serving.search.scann_index import ScannSettings
from towers.directions import DIRECTIONS
from towers.errors import BundleError, ConfigError
from towers.typed import STRICT, parse


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DirectionIndex:
    """The index of one direction."""

    settings: ScannSettings | None
    """None for an exact index."""
    recall: float
    """The share of the exact neighbours that it found when it was published."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IndexRecord:
    """The indexes of all directions; the value of `index` in a manifest."""

    kind: Literal["scann", "exact"]
    """With whose operations the SavedModels search."""
    directions: dict[str, DirectionIndex]
    """By name, all four."""

    def __post_init__(self) -> None:
        if self.directions.keys() != DIRECTIONS.keys():
            raise ConfigError(
                f"index.directions: expected {list(DIRECTIONS)}, received {list(self.directions)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any], *, where: str) -> IndexRecord:
        """Read what `to_dict` gave.

        Raises:
            BundleError: a key is unknown, missing or wrong; the message starts with `where`.
        """
        try:
            return parse(cls, raw, where=where)
        except ConfigError as error:
            raise BundleError(f"{error}\npublish again, or roll back to another version") from None
