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

    recall: float
    """The share of the exact neighbours that it found when it was published."""
    shells: tuple[ScannSettings, ...] = ()
    """How each of its shells was built and is searched, the longest vectors first."""
    settings: ScannSettings | None = None
    """The same of an index without shells, in a version that was published before there were any.
    Without either the index is exact."""
    missed: str = ""
    """Why it is exact in a version whose other indexes are not."""

    @property
    def trees(self) -> tuple[ScannSettings, ...]:
        """The settings of the shells; none where every vector is scored."""
        shells = self.shells or ((self.settings,) if self.settings else ())
        return shells if any(shell.num_leaves for shell in shells) else ()


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
