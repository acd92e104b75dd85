"""Vocabulary: which row of the feature table belongs to which token, bucket or number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype

from towers.errors import DataError
from towers.features.kinds import (
    Categorical,
    Cross,
    Feature,
    History,
    MultiValued,
    Numeric,
    Trend,
    Vector,
)
from towers.features.lists import cut_lists, read_vectors, vector_length
from towers.features.reading import (
    Column,
    is_marker,
    read_ids,
    read_numbers,
    read_tokens,
    token_kind,
)
from towers.features.schema import Schema, Side, space_of

DEFAULT_USER = "user.default user"
"""The space of a feature that a user has of whom nothing is known; no input has its name."""

NEWCOMER = "user.no history"
"""That of one that a user has of whom features tell, and no history; likewise."""

CROSSED = " & "
"""What stands between the tokens of a cross."""

NORMAL_QUARTILES = 1.349
"""How far the quartiles of a normal distribution lie apart, in standard deviations."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """A learned space: tokens [n] (int64, or str objects) with their rows and training counts."""

    tokens: NDArray[Any]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    oov_row: int

    @property
    def is_integer(self) -> bool:
        """Whether tokens are integers rather than text."""
        return bool(self.tokens.dtype == np.int64)


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """A space of hashed text: rows [first_row, first_row + buckets)."""

    first_row: int
    buckets: int


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A real-valued x = (value - mean) / std on one row, cut off at -limit and limit."""

    row: int
    mean: float
    """What counts as 0: the mean, or for a robust scale the median."""
    std: float
    """What counts as 1: the standard deviation, or its estimate from the quartiles."""
    limit: float | None = None
    """None: x is not bounded, as in versions published before x could be."""


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Quantile buckets: len(boundaries) + 1 rows from first_row on."""

    first_row: int
    boundaries: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """The real-valued x of a vector's numbers, on rows [first_row, first_row + size)."""

    first_row: int
    size: int
    is_unit: bool = False
    """Whether x is the vector divided by its length; else (value - mean) / std of each number."""
    means: tuple[float, ...] = ()
    """[size]; none where values are not moved."""
    stds: tuple[float, ...] = ()
    """[size]; none where values are not scaled."""


Space: TypeAlias = Tokens | Hashed | Scalar | Buckets | Coordinates


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The spaces by name, and the number of rows that the feature table needs."""

    spaces: Mapping[str, Space]
    n_rows: int

    @property
    def default_user_row(self) -> int | None:
        """The row of those of whom nothing is known; None in versions published without one."""
        space = self.spaces.get(DEFAULT_USER)
        return space.row if isinstance(space, Scalar) else None

    @property
    def newcomer_row(self) -> int | None:
        """The row of those without a history; None where no other feature tells of them."""
        space = self.spaces.get(NEWCOMER)
        return space.row if isinstance(space, Scalar) else None

    @property
    def oov_rows(self) -> list[int]:
        """The rows that unknown tokens share, one a learned space."""
        return [space.oov_row for space in self.spaces.values() if isinstance(space, Tokens)]

    def vectors(self, *sides: Side) -> list[Coordinates]:
        """The spaces of the vectors of some sides in order of their rows, users' first."""
        found = [
            space
            for name, space in self.spaces.items()
            if isinstance(space, Coordinates) and name.partition(".")[0] in sides
        ]
        return sorted(found, key=lambda space: space.first_row)

    def dense_rows(self, *sides: Side) -> range:
        """The rows of the numbers of these vectors."""
        spaces = self.vectors(*sides)
        first = spaces[0].first_row if spaces else 0
        return range(first, first + sum(space.size for space in spaces))

    def tokens(self, name: str) -> Tokens:
        """The learned space called `name`.

        Raises:
            TypeError: the space is of another kind.
        """
        space = self.spaces[name]
        if not isinstance(space, Tokens):
            raise TypeError(f"space {name}: expected Tokens, received {type(space).__name__}")
        return space


def rows_of(space: Space) -> NDArray[np.int64]:
    """The rows of a space; of learned tokens, the last is the one for all others."""
    if isinstance(space, Tokens):
        return np.append(space.rows, space.oov_row)
    if isinstance(space, Scalar):
        return np.array([space.row])
    if isinstance(space, Coordinates):
        return space.first_row + np.arange(space.size)
    n = space.buckets if isinstance(space, Hashed) else len(space.boundaries) + 1
    return space.first_row + np.arange(n)


def history_weights(counts: NDArray[np.int64], *, power: float) -> NDArray[np.float32]:
    """Weigh the items of a history by their training counts: c count^-power, before 1/sqrt(n).

    c makes the mean square over the training interactions 1, so that the scale of a user's bag
    depends neither on the power nor on how popular a data set's items are. An item that training
    never saw counts as seen once.
    """
    seen = np.maximum(counts, 1).astype(np.float64)
    weights = seen**-power
    mean_square = float(np.sum(counts * weights**2)) / max(int(counts.sum()), 1)
    return (weights / math.sqrt(mean_square or 1.0)).astype(np.float32)


def fit_vocabulary(
    schema: Schema,
    *,
    users: pd.DataFrame,
    items: pd.DataFrame,
    user_counts: NDArray[np.int64],
    item_counts: NDArray[np.int64],
    contexts: pd.DataFrame | None = None,
    context_counts: NDArray[np.int64] | None = None,
) -> Vocabulary:
    """Give rows to what the training interactions show; those of vectors lie together.

    Only users and items with a training interaction count, so that no row stays untrained, unless
    `min_count` is 0. An id's count is its number of interactions; any other token's the number of
    its users (items).

    Args:
        schema: the features.
        users: one row a user, with the id column first and the columns of features as they are.
        items: one row an item, likewise.
        user_counts: the number of training interactions of each user, [n_users].
        item_counts: the same of each item, [n_items].
        contexts: one row a moment, with the columns of the context, where there is one.
        context_counts: the number of training interactions of each moment, [n_moments].

    Raises:
        DataError: a column of vectors has none, or vectors of several lengths.
    """
    spaces: dict[str, Space] = {}
    n_rows = 0
    sides: list[tuple[Side, pd.DataFrame, NDArray[np.int64]]] = [
        ("user", users, user_counts),
        ("item", items, item_counts),
    ]
    features = [
        (side, feature, table, counts)
        for side, table, counts in sides
        for feature in schema.features(side)
        if not isinstance(feature, History)
    ]
    features.sort(key=lambda one: isinstance(one[1], Vector))
    for side, feature, table, counts in features:
        is_seen = counts >= min(getattr(feature, "min_count", 1), 1)
        name = space_of(feature, side=side, schema=schema)
        if isinstance(feature, Trend):
            spaces[name] = Scalar(row=n_rows, mean=0.0, std=1.0)
            n_rows += 1
            continue
        own = None
        if isinstance(feature, Cross):
            column = _cross(schema.crossed(feature, side=side), table, schema=schema, side=side)
        else:
            column = table[feature.column]
            own = counts[is_seen] if feature.column == schema.id_column(side) else None
        space, size = _fit_space(feature, column, n_rows, is_seen=is_seen, id_counts=own)
        spaces[name] = space
        n_rows += size
    if contexts is not None and context_counts is not None:
        is_seen = context_counts > 0
        for context in (*schema.context_features, *schema.context_crosses):
            if isinstance(context, Cross):
                crossed = schema.crossed(context, side="user")
                column = _cross(crossed, contexts, schema=schema, side="user")
            else:
                column = contexts[context.column]
            space, size = _fit_space(context, column, n_rows, is_seen=is_seen, id_counts=None)
            spaces[space_of(context, side="user", schema=schema)] = space
            n_rows += size
    for history in schema.histories:
        if history.vectors == "own" and schema.item_id_feature is not None:
            ids = spaces[space_of(schema.item_id_feature, side="item", schema=schema)]
            if isinstance(ids, Tokens):
                rows = np.arange(n_rows + 1, n_rows + 1 + len(ids.tokens), dtype=np.int64)
                name = space_of(history, side="user", schema=schema)
                spaces[name] = replace(ids, rows=rows, oov_row=n_rows)
                n_rows += len(rows) + 1
    for stand_in in (DEFAULT_USER, NEWCOMER) if schema.has_newcomers else (DEFAULT_USER,):
        spaces[stand_in] = Scalar(row=n_rows, mean=0.0, std=1.0)
        n_rows += 1
    return Vocabulary(spaces=spaces, n_rows=n_rows)


def _fit_space(
    feature: Feature,
    column: pd.Series[Any],
    first_row: int,
    *,
    is_seen: NDArray[np.bool_],
    id_counts: NDArray[np.int64] | None,
) -> tuple[Space, int]:
    """Fit one feature's space from row `first_row` on, and say how many rows it takes.

    The whole column decides whether its tokens are integers; those that are seen are learned.
    `id_counts` are the counts of seen values that are ids, of which none comes twice.
    """
    if isinstance(feature, Numeric):
        numbers = pd.Series(read_numbers(column, form=feature.form).values[is_seen])
        return _fit_numeric(feature, numbers, first_row)
    if isinstance(feature, Vector):
        found = _fit_vector(feature, column, first_row, is_seen=is_seen)
        return found, found.size
    if not isinstance(feature, (Categorical, Cross, MultiValued)):
        raise TypeError(f"{feature.name}: a {feature.kind} feature has no space of its own")
    if feature.hash_buckets is not None:
        return Hashed(first_row=first_row, buckets=feature.hash_buckets), feature.hash_buckets
    if id_counts is None:
        counts = _count_tokens(feature, column, is_seen=is_seen)
    else:
        counts = pd.Series(id_counts, index=pd.Index(column[is_seen]))
    counts = counts[counts >= feature.min_count]
    integer = bool(pd.api.types.is_integer_dtype(counts.index.infer_objects()))
    tokens = np.asarray(counts.index, dtype=np.int64 if integer else object)
    order = np.argsort(tokens, kind="stable")
    space = Tokens(
        tokens=tokens[order],
        rows=np.arange(first_row + 1, first_row + 1 + len(tokens), dtype=np.int64),
        counts=np.asarray(counts, dtype=np.int64)[order],
        oov_row=first_row,
    )
    return space, len(tokens) + 1


def _cross(
    features: Sequence[Categorical], table: pd.DataFrame, *, schema: Schema, side: Side
) -> pd.Series[Any]:
    """Join the tokens of several columns of a table; missing where one of them is."""
    parts = []
    for feature in features:
        column = table[feature.column]
        if feature.name == schema.id_input(side) and not is_integer_dtype(column.dtype):
            parts.append(read_ids(column, "text").values)
        else:
            parts.append(read_tokens(column, "text").values)
    joined = [CROSSED.join(tokens) if all(tokens) else None for tokens in zip(*parts, strict=True)]
    return pd.Series(joined, dtype=object)


def _count_tokens(
    feature: Categorical | Cross | MultiValued,
    column: pd.Series[Any],
    *,
    is_seen: NDArray[np.bool_],
) -> pd.Series[int]:
    """Count how often the tokens of a column occur in the rows that are seen."""
    values: Column = column
    if isinstance(feature, MultiValued):
        lists = cut_lists(column, feature.separator)
        values, is_seen = lists.values, np.repeat(is_seen, lists.lengths)
    read = read_tokens(values, token_kind(values))
    return pd.Series(read.values[is_seen & ~is_marker(read.values)]).value_counts()


def _fit_numeric(
    feature: Numeric, values: pd.Series[Any], first_row: int
) -> tuple[Scalar | Buckets, int]:
    """Fit a scale, or the quantiles that cut the values into buckets of equal counts."""
    known = values.dropna().to_numpy(np.float64)
    if feature.buckets is not None:
        shares = np.linspace(0.0, 1.0, feature.buckets + 1)[1:-1]
        quantiles = np.quantile(known, shares) if len(known) else np.empty(0)
        boundaries = tuple(np.unique(quantiles.astype(np.float32)).tolist())
        return Buckets(first_row=first_row, boundaries=boundaries), len(boundaries) + 1
    limit = feature.clip if feature.scale == "robust" else None
    if feature.scale == "none" or not len(known):
        return Scalar(row=first_row, mean=0.0, std=1.0, limit=limit), 1
    middle, spread = _robust(known) if feature.scale == "robust" else _moments(known)
    return Scalar(row=first_row, mean=middle, std=spread, limit=limit), 1


def _fit_vector(
    feature: Vector, column: pd.Series[Any], first_row: int, *, is_seen: NDArray[np.bool_]
) -> Coordinates:
    """Fit the scale of each number of a vector."""
    size = feature.length or vector_length(column)
    if not size:
        raise DataError(
            f"column {feature.column!r}: expected lists of numbers, received none; remove the "
            "feature, or fill the column"
        )
    if feature.scale != "standard":
        return Coordinates(first_row=first_row, size=size, is_unit=feature.scale == "unit")
    seen = read_vectors(column[is_seen], size=size).values
    known = seen[np.isfinite(seen).any(axis=1)].astype(np.float64)
    moments = [_moments(one[np.isfinite(one)]) if len(one) else (0.0, 1.0) for one in known.T]
    return Coordinates(
        first_row=first_row,
        size=size,
        means=tuple(mean for mean, _ in moments),
        stds=tuple(std * math.sqrt(size) for _, std in moments),
    )


def _robust(known: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and the standard deviation that a normal distribution of these quartiles has.

    Where half of the values or more are equal, the quartiles say nothing: the moments are taken.
    """
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    if _is_rounding(high - low, middle):
        return _moments(known)
    return float(middle), float(high - low) / NORMAL_QUARTILES


def _moments(known: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation; 1 for values that are all equal."""
    mean, std = float(known.mean()), float(known.std())
    return mean, 1.0 if _is_rounding(std, mean) else std


def _is_rounding(spread: float, middle: float) -> bool:
    """Whether float32 cannot tell apart numbers that differ by so little."""
    return bool(spread <= np.finfo(np.float32).eps * abs(middle))
