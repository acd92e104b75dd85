from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.candidates.merge import depth_of, merge
from pipelines.candidates.settings import Channel

NAMES: Any = ("u2i", "i2i", "u2u2i", "popularity")


def by_hand(channels: list[Channel], lists: list[list[int]], *, k: int) -> list[tuple[int, str]]:
    """The rule for one user, step by step."""
    taken: set[int] = set()
    chosen: dict[str, list[int]] = {channel.name: [] for channel in channels}

    def take(channel: str, rows: list[int], count: int) -> None:
        for row in rows:
            if count and row not in taken:
                taken.add(row)
                chosen[channel].append(row)
                count -= 1

    for channel, rows in zip(channels, lists, strict=True):
        take(channel.name, rows, channel.quota)
    for filler in ("u2i", "popularity"):
        for channel, rows in zip(channels, lists, strict=True):
            if channel.name == filler:
                take(filler, rows, k - len(taken))
    return [
        (row, channel.name)
        for channel, rows in zip(channels, lists, strict=True)
        for row in rows
        if row in chosen[channel.name]
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Channel], list[list[list[int]]], int]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    channels = [Channel(name=name, quota=draw(st.integers(1, 4))) for name in names]
    k = sum(channel.quota for channel in channels) + draw(st.integers(0, 4))
    rows = st.lists(st.integers(0, 12), max_size=10, unique=True)
    n = draw(st.integers(0, 3))
    return channels, [[draw(rows) for _ in range(n)] for _ in channels], k


@given(cases())
def test_merge_follows_the_rule(case: Any) -> None:
    channels, lists, k = case
    padded = []
    for per_user in lists:
        rows = np.full((len(per_user), 11), -1, dtype=np.int64)
        for place, listed in enumerate(per_user):
            rows[place, : len(listed)] = listed
        scores = np.where(rows < 0, -np.inf, -np.arange(11.0)).astype(np.float32)
        padded.append((rows, scores))
    merged = merge(channels, padded, k=k)
    for place in range(len(lists[0])):
        mine = merged.places == place
        found = [
            (row, channels[code].name)
            for row, code in zip(merged.rows[mine], merged.channels[mine], strict=True)
        ]
        assert found == by_hand(channels, [per_user[place] for per_user in lists], k=k)
        assert merged.ranks[mine].tolist() == list(range(1, len(found) + 1))
        for row, score, code in zip(
            merged.rows[mine], merged.scores[mine], merged.channels[mine], strict=True
        ):
            assert score == -lists[code][place].index(row)
    assert (np.diff(merged.places) >= 0).all()


def test_depths_suffice_for_any_overlap() -> None:
    """All channels list the same items: each still gives its quota, and fillers what is left."""
    channels = [Channel(name=name, quota=2) for name in NAMES]
    k = 11
    depths = [depth_of(channels, position, k=k) for position in range(4)]
    assert depths == [11, 4, 6, 11]
    rows = np.arange(20)[np.newaxis]
    lists = [(rows[:, :depth], -rows[:, :depth].astype(np.float32)) for depth in depths]
    merged = merge(channels, lists, k=k)
    assert np.bincount(merged.channels).tolist() == [5, 2, 2, 2]
    assert sorted(merged.rows) == list(range(11))
