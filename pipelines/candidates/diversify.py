"""Merge the lists of channels as `merge` does, with caps and with candidates unlike each other.

Channels and their quotas come in the order of `pipelines.candidates.merge`. Caps count all of a
user's candidates, and each channel in its turn takes what `serving.retrieval.diversity` likes best
beside those that are taken already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.candidates.channels import Channels, Users
from pipelines.candidates.merge import FILLERS, Mask, Merged, depth_of, flatten
from pipelines.candidates.settings import CandidateSettings
from serving.retrieval.catalogue import Catalogue
from serving.retrieval.diversity import DEEPER, Capped, Diversity, Room, capped_columns, choose
from serving.search.index import Found, Vectors
from towers.directions import DIRECTIONS


def merge_diverse(
    channels: Channels,
    users: Users,
    items: Catalogue,
    *,
    settings: CandidateSettings,
    diversity: Diversity,
) -> Merged:
    """Choose each user's candidates, at most k; every list goes as deep as it must.

    What a user gets does not depend on who else is asked for.
    """
    plan = settings.plan
    short, deeper = np.arange(users.size), DEEPER
    found: list[Merged] = []
    while len(short):
        depths = [deeper * depth_of(plan, i, k=settings.k) for i in range(len(plan))]
        some = users.take(short)
        lists = [
            channels.list(channel.name, some, depth)
            for channel, depth in zip(plan, depths, strict=True)
        ]
        chosen = _choose(lists, items, settings=settings, diversity=diversity)
        is_done = _is_done(lists, chosen, settings=settings)
        kept = [(rows[is_done], scores[is_done]) for rows, scores in lists]
        merged = flatten(kept, [mask[is_done] for mask in chosen])
        found.append(merged.at(short[is_done]))
        short, deeper = short[~is_done], DEEPER * deeper
    return Merged.concat(found)


def _choose(
    lists: Sequence[Found],
    items: Catalogue,
    *,
    settings: CandidateSettings,
    diversity: Diversity,
) -> list[Mask]:
    """Flag what is chosen of the lists of each user."""
    chosen = [np.zeros(rows.shape, dtype=np.bool_) for rows, _ in lists]
    rows = np.concatenate([rows for rows, _ in lists], axis=1)
    every = np.unique(rows[rows >= 0])
    columns = capped_columns(items, every, diversity.max_per)
    unit = DIRECTIONS["i2i"].project(items.vectors[every if diversity.weight else every[:0]])
    ends = np.cumsum([found.shape[1] for found, _ in lists])[:-1]
    for user, of_user in enumerate(rows):
        own = np.unique(of_user[of_user >= 0])
        at = np.searchsorted(every, own)
        places = np.where(of_user >= 0, np.searchsorted(own, of_user), -1)
        turn = _Turn(
            np.split(places, ends),
            [scores[user] for _, scores in lists],
            room=Room([Capped(one.codes[at], one.cap) for one in columns], size=len(own)),
            unit=unit[at] if diversity.weight else unit,
            weight=diversity.weight,
        )
        for position, flags in enumerate(turn.run(settings)):
            chosen[position][user] = flags
    return chosen


@dataclass(frozen=True, eq=False)
class _Turn:
    """The channels of one user take what they like, one after another."""

    places: list[NDArray[np.int64]]
    """Each channel's list, as places among all that the user's channels list; -1 for none."""
    scores: list[Vectors]
    """Theirs."""
    room: Room
    unit: Vectors
    """Of all that are listed, [n, d]."""
    weight: float
    taken: list[int] = field(default_factory=list)
    """The places that are taken."""

    def run(self, settings: CandidateSettings) -> list[Mask]:
        """Flag what each channel takes of its list."""
        flags = [np.zeros(len(places), dtype=np.bool_) for places in self.places]
        for position, channel in enumerate(settings.plan):
            self._take(position, flags[position], count=channel.quota)
        for name in FILLERS:
            for position, channel in enumerate(settings.plan):
                if channel.name == name:
                    room = settings.k - len(self.taken)
                    self._take(position, flags[position], count=room)
        return flags

    def _take(self, position: int, flags: Mask, *, count: int) -> None:
        """Let a channel take up to `count` more, and flag them."""
        places = self.places[position]
        left = np.flatnonzero((places >= 0) & ~np.isin(places, self.taken))
        if count <= 0 or not len(left):
            return
        picked = choose(
            places[left],
            self.scores[position][left],
            unit=self.unit,
            room=self.room,
            taken=self.taken,
            k=count,
            weight=self.weight,
        )
        self.taken.extend(picked)
        flags[left[np.isin(places[left], picked)]] = True


def _is_done(
    lists: Sequence[Found], chosen: Sequence[Mask], *, settings: CandidateSettings
) -> Mask:
    """Which users have all that they can have: as many as are asked for, or whole lists."""
    plan = settings.plan
    count = sum(mask.sum(axis=1) for mask in chosen)
    done: Mask = count >= settings.k
    fills = [channel.name in FILLERS for channel in plan]
    whole = [
        (rows < 0).any(axis=1) | (mask.sum(axis=1) >= channel.quota) & ~np.bool_(is_filler)
        for (rows, _), mask, channel, is_filler in zip(lists, chosen, plan, fills, strict=True)
    ]
    return np.asarray(done | np.logical_and.reduce(whole))
