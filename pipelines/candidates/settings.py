"""The settings of a candidates job: its channels and their quotas, and what is left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from pipelines.config import read_toml
from towers.errors import ConfigError
from towers.typed import STRICT, parse

ChannelName = Literal["u2i", "i2i", "u2u2i", "popularity", "recent"]

SHARES: dict[ChannelName, float] = {"u2i": 0.6, "i2i": 0.2, "u2u2i": 0.1, "popularity": 0.1}
"""The default channels, in order of priority, with their shares of k."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Channel:
    """One source of candidates."""

    name: ChannelName
    """`u2i`: items that match the user; `i2i`: items like the user's latest; `u2u2i`: what similar
    users have; `popularity`: what most users have; `recent`: what most users chose of late, in
    versions whose interactions were split by time."""
    quota: PositiveInt
    """How many of a user's k candidates come from it, as long as the other channels fill theirs."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CandidateSettings:
    """What decides the candidates of a user, and the size of shards and batches."""

    k: PositiveInt = 100
    """How many candidates a user gets; fewer only where no more items are left."""
    channels: tuple[Channel, ...] = ()
    """In order of priority. Default: u2i with 60% of k, i2i with 20%, u2u2i and popularity with 10%
    each."""
    latest: PositiveInt = 5
    """i2i starts from this many of the user's items: the last ones of the given history or, without
    one, the least popular of its training items, which have no order."""
    neighbours: PositiveInt = 50
    """u2u2i counts the items of this many similar users."""
    exclude_seen: bool = True
    """Leave out what the user has in training or in the history given; in audiences, the users that
    have the item."""
    prefer_features: bool = False
    """Embed a known user from its features where the input gives any; features that are not given
    are then missing. By default a known user has its stored vector."""
    where: dict[str, Any] | None = None
    """Which items may be candidates; see `serving.search.filters`."""
    max_per: dict[str, PositiveInt] = dataclasses.field(default_factory=dict)
    """By a column of the items, how many of a user's candidates may have the same value at most."""
    diversity: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """How much it counts that a user's candidates are unlike each other, from 0 to 1; see
    `serving.retrieval.diversity`."""
    rank: bool = False
    """Order a user's k candidates, of whatever channel, by the version's ranker: `score` is then
    its logit, and `rank` the place by it."""
    audience_k: PositiveInt = 100
    """How many users an item's audience has."""
    shard_size: PositiveInt = 65_536
    """Rows of the input that one shard answers: the most that a killed job repeats."""
    batch_size: PositiveInt = 4096
    """Rows that are answered together; less needs less memory."""

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) < len(names):
            raise ConfigError(f"channels: expected each channel once, received {names}")
        total = sum(channel.quota for channel in self.channels)
        if total > self.k:
            raise ConfigError(
                f"channels: expected quotas of at most k = {self.k} together, received {total}; "
                "lower the quotas, or raise k"
            )

    @property
    def plan(self) -> tuple[Channel, ...]:
        """The channels in order of priority; default quotas are rounded down, the rest is u2i's."""
        if self.channels:
            return self.channels
        quotas = {name: int(share * self.k) for name, share in SHARES.items()}
        quotas["u2i"] += self.k - sum(quotas.values())
        return tuple(Channel(name=name, quota=quota) for name, quota in quotas.items() if quota)


def load_settings(path: Path | None, *, changes: dict[str, Any]) -> CandidateSettings:
    """Read the settings from a TOML file, if one is given, with some of them changed.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is wrong.
    """
    raw = {} if path is None else read_toml(path)
    where = "candidates" if path is None else str(path)
    return parse(CandidateSettings, raw | changes, where=where)


def parse_channels(text: str) -> list[dict[str, Any]]:
    """Read channels as they are typed: `u2i=60,i2i=20`, in order of priority.

    Raises:
        ConfigError: the text is not of this form.
    """
    channels = []
    for part in text.split(","):
        name, equals, quota = part.partition("=")
        if not equals or not quota.strip().isdecimal():
            raise ConfigError(
                f"--channels: expected name=quota, separated by commas, received {part!r}; for "
                f"example {','.join(f'{name}={share * 100:.0f}' for name, share in SHARES.items())}"
            )
        channels.append({"name": name.strip(), "quota": int(quota)})
    return channels
