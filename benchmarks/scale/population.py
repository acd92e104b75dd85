"""Users and items from nothing, with the structure that a model can learn.

Items belong to categories of skewed sizes, and in these to brands. A user has five favourite
categories, and in each a favourite brand; which categories are likely depends on the user's age and
on the region of its city. Users arrive over two years and stay for a while, and some items are
released late, so that a split by time has cold users and cold items.

Users and items are the same for any number of interactions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from towers.errors import ConfigError

START = 1_640_995_200
"""The first second of the interactions, since 1970: 1 January 2022, UTC."""

SPAN = 730 * 86_400
"""Seconds from the first to the last interaction: two years."""

MOST = 5000
"""The most interactions of one user."""

FAVOURITES = 5
"""Categories that a user prefers."""

AGES = ("under 18", "18-24", "25-34", "35-44", "45-54", "55-64", "65 and over")
AGE_SHARES = (0.06, 0.22, 0.29, 0.19, 0.12, 0.08, 0.04)
N_CITIES, N_REGIONS = 300, 6
N_CATEGORIES, ITEMS_A_CATEGORY = 300, 50
"""The most categories, and the fewest items that one has on average."""

N_TAGS, TAGS_A_CATEGORY, MOST_TAGS = 2000, 16, 4
ACTIVITY = 1.0
"""Standard deviation of the logarithm of interactions a day."""

THERE_AT_START, STAY_S = 0.3, 300 * 86_400
"""The share of users who are there from the beginning, and how long a user stays on average."""

RELEASED_LATE, UNKNOWN = 0.2, 0.01
"""The share of items that are released later, and of values that are missing."""

ID_BITS = 40

USERS, ITEMS = 0, 1
SLICES = 2
"""The random streams of a seed; a slice of time adds its number, from 1."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to generate, and the seed that decides every draw.

    Raises:
        ConfigError: no users can have so many, or so few, interactions.
    """

    interactions: int
    users: int = 1_000_000
    items: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.users < 1 or self.items < 1 or self.seed < 0:
            raise ConfigError(
                "users, items, seed: expected at least 1, 1 and 0, received "
                f"{self.users}, {self.items} and {self.seed}; raise them"
            )
        if not self.users <= self.interactions <= self.users * MOST:
            raise ConfigError(
                f"interactions: expected from 1 to {MOST:,} a user, received "
                f"{self.interactions:,} of {self.users:,} users; change one of them"
            )

    @property
    def name(self) -> str:
        """A name for files that are made of it; another size has another."""
        return f"{self.interactions}-{self.users}-{self.items}-{self.seed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Items:
    """Items by place: in order of categories, and in each by popularity, the best first."""

    ids: NDArray[np.int64]
    released: NDArray[np.int32]
    """Seconds after `START`."""
    starts: NDArray[np.int32]
    """The first place of each category, [n_categories]."""
    counts: NDArray[np.int32]
    """Its number of items."""
    brands: NDArray[np.int32]
    """Its number of brands; the item at place p has brand (p - start) mod this."""
    shares: NDArray[np.float64]
    """The share of each category in what is chosen without regard to favourites."""

    @property
    def category(self) -> NDArray[np.int32]:
        """The category of each place."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Users:
    """Users by row."""

    ids: NDArray[np.int64]
    age: NDArray[np.int8]
    city: NDArray[np.int16]
    favourites: NDArray[np.int16]
    """Categories, the dearest first, [n_users, FAVOURITES]."""
    brands: NDArray[np.int16]
    """The favourite brand in each, as a number within the category."""
    arrival: NDArray[np.float64]
    """Seconds after `START`."""
    stay: NDArray[np.float64]
    """Seconds from the arrival to the last interaction."""
    activity: NDArray[np.float64]
    """What the number of interactions is proportional to."""


def scrambled(rows: NDArray[np.int64], *, side: int) -> NDArray[np.int64]:
    """Map rows below 2^40 to ids below 2^40, one to one, so that an id says nothing of its row."""
    factor, offset = (0x9E3779B97F4A7C15, 0x51ED27) if side == USERS else (0xD1B54A32D192ED03, 77)
    ids = rows.astype(np.uint64) * np.uint64(factor) + np.uint64(offset)
    return (ids & np.uint64(2**ID_BITS - 1)).astype(np.int64)


def make_items(size: Size) -> Items:
    """Make the items of a size."""
    rng = np.random.default_rng([size.seed, ITEMS])
    n_categories = min(N_CATEGORIES, -(-size.items // ITEMS_A_CATEGORY))
    weights = 1 / (np.arange(n_categories) + 10)
    counts = apportion(size.items - n_categories, weights) + 1
    starts = np.cumsum(counts) - counts
    shares = counts * rng.lognormal(sigma=0.5, size=n_categories)
    late = rng.random(size.items) < RELEASED_LATE
    late[starts] = False  # so that something of every category is there
    return Items(
        ids=scrambled(rng.permutation(size.items), side=ITEMS),
        released=np.where(late, rng.integers(SPAN, size=size.items), 0).astype(np.int32),
        starts=starts.astype(np.int32),
        counts=counts.astype(np.int32),
        brands=np.ceil(np.cbrt(counts)).astype(np.int32),
        shares=shares / shares.sum(),
    )


def make_users(size: Size, items: Items) -> Users:
    """Make the users of a size, with favourites among the categories of `items`."""
    rng = np.random.default_rng([size.seed, USERS])
    n = size.users
    age = rng.choice(len(AGES), size=n, p=AGE_SHARES).astype(np.int8)
    cities = 1 / (np.arange(N_CITIES) + 5)
    city = rng.choice(N_CITIES, size=n, p=cities / cities.sum()).astype(np.int16)
    group = age.astype(np.int64) * N_REGIONS + city % N_REGIONS
    favourites = _favourites(group, items, rng)
    n_brands = items.brands[favourites]
    arrival = np.where(rng.random(n) < THERE_AT_START, 0.0, rng.random(n) * (SPAN - 86_400))
    leaves = np.minimum(arrival + 86_400 + rng.exponential(STAY_S, n), SPAN)
    stay = leaves - arrival
    return Users(
        ids=scrambled(np.arange(n), side=USERS),
        age=age,
        city=city,
        favourites=favourites,
        brands=(rng.random(favourites.shape) * n_brands).astype(np.int16),
        arrival=arrival,
        stay=stay,
        activity=stay * rng.lognormal(sigma=ACTIVITY, size=n),
    )


def make_counts(size: Size, users: Users) -> NDArray[np.int64]:
    """The number of interactions of each user: all of `size`, from 1 to `MOST` each."""
    low, high = 0.0, float(size.interactions) * MOST / users.activity.min()
    for _ in range(200):  # as fine as float64 is
        scale = (low + high) / 2
        total = np.clip(users.activity * scale, 1, MOST).sum()
        low, high = (scale, high) if total <= size.interactions else (low, scale)
    shares = np.clip(users.activity * low, 1, MOST)
    return _rounded(shares, size.interactions)


def users_table(size: Size, users: Users) -> pa.Table:
    """The table of the users: user_id, age (text, some missing) and city."""
    rng = np.random.default_rng([size.seed, USERS, 1])
    unknown = rng.random(size.users) < UNKNOWN
    return pa.table(
        {
            "user_id": users.ids,
            "age": pa.array(AGES).take(pa.array(users.age, mask=unknown)),
            "city": users.city.astype(np.int64),
        }
    )


def items_table(size: Size, items: Items) -> pa.Table:
    """The table of the items, shuffled: item_id, category, brand, price and tags, some missing."""
    rng = np.random.default_rng([size.seed, ITEMS, 1])
    category = items.category
    within = np.arange(size.items) - items.starts[category]
    first_brand = np.cumsum(items.brands) - items.brands
    level = rng.normal(3.0, 0.8, len(items.counts))
    price = np.exp(rng.normal(level[category], 0.5)).round(2)
    names = pa.array([f"category-{number:03d}" for number in range(len(items.counts))])
    table = pa.table(
        {
            "item_id": items.ids,
            "category": names.take(pa.array(category)),
            "brand": (first_brand[category] + within % items.brands[category]).astype(np.int64),
            "price": pa.array(price, mask=rng.random(size.items) < UNKNOWN),
            "tags": _tags(category, rng),
        }
    )
    return table.take(pa.array(rng.permutation(size.items)))


def apportion(total: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide a total into whole numbers in proportion to weights, by the largest remainders."""
    return _rounded(weights / weights.sum() * total, total)


def _rounded(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round shares down, and up those with the largest remainders, so that `total` is kept."""
    whole = np.floor(shares).astype(np.int64)
    missing = total - int(whole.sum())
    if missing:
        remainders = shares - whole
        whole[np.argpartition(-remainders, missing - 1)[:missing]] += 1
    return whole


def _favourites(
    group: NDArray[np.int64], items: Items, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Draw each user's favourite categories with the likelihoods of its age band and region."""
    n_categories = len(items.counts)
    by_age = rng.lognormal(sigma=1.2, size=(len(AGES), 1, n_categories))
    by_region = rng.lognormal(sigma=0.8, size=(1, N_REGIONS, n_categories))
    weights = (by_age * by_region * items.shares).reshape(-1, n_categories)
    upto = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    flat = (upto + np.arange(len(upto))[:, None]).ravel()
    drawn = group[:, None] + rng.random((len(group), FAVOURITES))
    found = np.searchsorted(flat, drawn, side="right") - group[:, None] * n_categories
    within: NDArray[np.int64] = np.clip(found, 0, n_categories - 1)  # 1.0 may be rounded
    return within.astype(np.int16)


def _tags(category: NDArray[np.int32], rng: np.random.Generator) -> pa.Array:
    """Up to `MOST_TAGS` different tags of the category for each item; null for a few items."""
    n = len(category)
    lengths = rng.integers(MOST_TAGS + 1, size=n)
    unknown = rng.random(n) < UNKNOWN
    lengths[unknown] = 0
    first, step = rng.integers(TAGS_A_CATEGORY, size=n), 2 * rng.integers(4, size=n) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item = np.repeat(np.arange(n), lengths)
    number = np.arange(len(item)) - offsets[item]  # an odd step meets no tag of the 16 twice
    tag = category[item] * 7 + (first[item] + number * step[item]) % TAGS_A_CATEGORY
    names = pa.array([f"tag-{number:04d}" for number in range(N_TAGS)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), names.take(pa.array(tag % N_TAGS)), mask=pa.array(unknown)
    )
