"""Draw interactions, a slice of time after another.

A user's interactions are spread evenly over its stay. Three quarters are of its favourite
categories, and a quarter of these of its favourite brand there; the rest are of any category.
Within a category or a brand the item is drawn by popularity: the item of rank r, from 0, has a
share proportional to log((r + 1 + H) / (r + H)), about 1 / (r + H), which is Zipf's law of exponent
1 with a flattened head. Its inverse is a formula, so no table is searched.

With a million users and items, the most popular hundredth of the items has 22% of the interactions;
of 50 and of 200 million interactions, 3% and 7% repeat a user and an item.

Each slice has a random stream of its own, so that the rows do not depend on how many are held in
memory at a time. The same NumPy on the same kind of processor gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale.population import FAVOURITES, SLICES, SPAN, START, Items, Size, Users

HEAD = 30
"""H: how far the head of the popularity is flattened."""

SLOTS = np.repeat(np.arange(FAVOURITES + 1), (72, 48, 33, 24, 15, 64)).astype(np.int8)
"""Which of the favourites an interaction is of, by one random byte; the last stands for any."""

OF_BRAND = 64
"""How many of 256 interactions with a favourite category are with its favourite brand."""

FEWEST_SLICES, ROWS_A_SLICE = 128, 2**20
"""Slices are short enough to tell when users arrive, and hold so many rows on average at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """Interactions in order of time, [n]."""

    users: NDArray[np.int32]
    """Rows of users."""
    places: NDArray[np.int32]
    """Places of items."""
    times: NDArray[np.int64]
    """Seconds since 1970."""


def draw_slices(
    size: Size, users: Users, items: Items, counts: NDArray[np.int64]
) -> Iterator[Slice]:
    """Draw the interactions in order of time, each user as many as `counts` says."""
    n_slices = max(FEWEST_SLICES, size.interactions // ROWS_A_SLICE)
    ends = np.arange(1, n_slices + 1) * SPAN // n_slices
    phase = np.random.default_rng([size.seed, SLICES]).random(len(counts), dtype=np.float32)
    before = np.zeros(len(counts), dtype=np.int64)
    start = 0
    for number, end in enumerate(ends.tolist(), start=1):  # [seed, SLICES] is [seed, SLICES, 0]
        rng = np.random.default_rng([size.seed, SLICES, number])
        passed = np.clip((end - users.arrival) / users.stay, 0.0, 1.0)
        upto = (counts * passed + phase).astype(np.int64)
        rows = np.repeat(np.arange(len(counts), dtype=np.int32), upto - before)
        rng.shuffle(rows)
        yield Slice(
            users=rows,
            places=_draw_places(rows, users, items, now=start, rng=rng),
            times=START + np.sort(rng.integers(start, end, size=len(rows))),
        )
        before, start = upto, end


def _draw_places(
    rows: NDArray[np.int32], users: Users, items: Items, *, now: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draw an item that is released for each user, [n]."""
    slot = SLOTS[rng.integers(256, size=len(rows), dtype=np.uint8)]
    anywhere = np.flatnonzero(slot == FAVOURITES)
    slot[anywhere] = 0
    chosen = rows.astype(np.int64) * FAVOURITES + slot
    category = users.favourites.ravel()[chosen]
    category[anywhere] = _draw_categories(items, len(anywhere), rng)
    is_brand = rng.integers(256, size=len(rows), dtype=np.uint8) < OF_BRAND
    is_brand[anywhere] = False
    brand = np.where(is_brand, users.brands.ravel()[chosen], 0)
    places = draw_within(category, items, rng, brand=brand, is_brand=is_brand)
    waiting = np.flatnonzero(items.released[places] > now)
    while len(waiting):  # then any brand of the category, whose first item is always there
        places[waiting] = draw_within(category[waiting], items, rng)
        waiting = waiting[items.released[places[waiting]] > now]
    return places


def _draw_categories(items: Items, n: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Draw categories by their share in all that is chosen."""
    return np.searchsorted(
        np.cumsum(items.shares)[:-1].astype(np.float32), rng.random(n, dtype=np.float32)
    ).astype(np.int16)


def draw_within(
    category: NDArray[np.int16],
    items: Items,
    rng: np.random.Generator,
    *,
    brand: NDArray[np.int16] | None = None,
    is_brand: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """Draw places by popularity, of the whole category or of a brand in it."""
    n, first = items.counts[category], items.starts[category]
    stride = np.ones_like(n)
    if brand is not None and is_brand is not None:
        stride = np.where(is_brand, items.brands[category], 1)
        n = (n - 1 - brand) // stride + 1
        first = first + brand
    uniform = rng.random(len(category), dtype=np.float32)
    rank = HEAD * np.expm1(uniform * np.log1p(n.astype(np.float32) / HEAD))
    place: NDArray[np.int32] = first + stride * np.minimum(rank.astype(np.int32), n - 1)
    return place
