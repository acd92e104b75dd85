"""Look at the features: those that say nothing, that say too much, and that no index likes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared
from towers.features.kinds import Categorical, MultiValued, Numeric
from towers.features.lists import cut_lists
from towers.features.reading import read_numbers
from towers.features.schema import SIDES, Schema, Side

ALMOST_ALWAYS = 0.95
"""Warn of a column that is missing, or the same, in so large a share of the rows."""
LIKE_AN_ID = 0.8
"""Warn of a categorical feature with so many different values for each row."""
FOLLOWS = 0.9
"""Warn of a number whose order is so nearly that of counts or times (Spearman's correlation)."""
DECIDES = 0.8
"""Warn where a feature of users tells so much of one of items (Cramer's V)."""
FAR_OUT = 5.0
"""Warn of unscaled numbers of which one in a thousand is so many spreads from the median."""
SAMPLE = 200_000
"""How many interactions are looked at."""
FEW = 30


def warn_of_features(config: RunConfig, prepared: Prepared) -> list[str]:
    """List the warnings about features, each a sentence with a remedy."""
    schema = config.schema
    found = [
        line
        for side in SIDES
        for feature in schema.features(side)
        for line in _of_feature(feature, prepared, schema, side=side)
    ]
    return [*found, *_of_context(prepared, schema), *_of_pairs(prepared, schema)]


def _of_feature(feature: Any, prepared: Prepared, schema: Schema, *, side: Side) -> Iterator[str]:
    """What one feature of users or items says."""
    table = prepared.tables[side]
    if not isinstance(feature, Categorical | MultiValued | Numeric):
        return
    if feature.column == schema.id_column(side) or feature.column not in table:
        return
    column = table[feature.column]
    name = f"{side} feature {feature.name!r}"
    missing = _missing(feature, column)
    if missing.mean() > ALMOST_ALWAYS:
        yield f"{name} is missing for {missing.mean():.1%} of the {side}s; leave it out"
        return
    given = column[~missing]
    if isinstance(feature, Categorical):
        yield from _of_tokens(feature, given, name, side=side)
    elif isinstance(feature, Numeric):
        yield from _of_numbers(feature, given, name)
        yield from _of_leaks(column, prepared, name, side=side)


def _missing(feature: Any, column: pd.Series) -> NDArray[np.bool_]:
    """Which values of a column are missing; an empty list is."""
    if isinstance(feature, MultiValued):
        return np.asarray(cut_lists(column, feature.separator).lengths == 0)
    return column.isna().to_numpy(dtype=bool)


def _of_tokens(feature: Categorical, given: pd.Series, name: str, *, side: Side) -> Iterator[str]:
    """Tokens that are nearly always the same, or hardly ever."""
    counts = given.astype(str).value_counts()
    if len(given) < FEW:
        return
    if counts.iloc[0] > ALMOST_ALWAYS * len(given):
        yield (
            f"{name} is {counts.index[0]!r} for {counts.iloc[0] / len(given):.1%} of the {side}s: "
            "it tells hardly any apart; leave it out, unless the rest matters"
        )
    elif len(counts) > LIKE_AN_ID * len(given) and feature.hash_buckets is None:
        yield (
            f"{name} has {len(counts):,} values for {len(given):,} {side}s: it is an id, which new "
            f"{side}s do not share; leave it out, or set min_count = 2"
        )


def _of_numbers(feature: Numeric, given: pd.Series, name: str) -> Iterator[str]:
    """Numbers far out, which make long vectors."""
    if feature.buckets is not None or feature.scale == "robust" or len(given) < FEW:
        return
    numbers = read_numbers(given, form=feature.form).values
    middle, low, high, end = np.nanquantile(numbers, [0.5, 0.25, 0.75, 0.999])
    spread = max(high - low, np.nanstd(numbers) / 10, 1e-12)
    if abs(end - middle) > FAR_OUT * spread:
        yield (
            f"{name} has a long tail (one of a thousand is {end:,.6g}, the middle {middle:,.6g}) "
            f"and scale = {feature.scale!r}, which is not bounded: some vectors are so long that "
            'they lead every ranking, and no index finds them; use buckets, or scale = "robust"'
        )


def _of_leaks(column: pd.Series, prepared: Prepared, name: str, *, side: Side) -> Iterator[str]:
    """Numbers that were counted from what is to be predicted."""
    stored = prepared.stored(*PARTS)
    counts = stored.user_counts if side == "user" else stored.item_counts
    numbers = read_numbers(column).values
    some = (counts > 0) & ~np.isnan(numbers)
    if correlation(numbers[some], counts[some]) > FOLLOWS:
        yield (
            f"{name} follows the number of interactions of the {side}: was it counted over the "
            "same interactions, those of the test included? then the figures are too good to be "
            'true; count it over training alone, or leave it out (kind = "trend" counts anew)'
        )
    if side == "item" and stored.has_times:
        items, times = stored.item_times(0)
        first = pd.Series(times).groupby(items).min().reindex(range(len(numbers))).to_numpy()
        seen = ~np.isnan(first) & ~np.isnan(numbers)
        if abs(correlation(numbers[seen], first[seen])) > FOLLOWS:
            yield (
                f"{name} follows the time of the item's first interaction: known before it? values "
                "of new items lie beyond all that training has seen"
            )


def correlation(numbers: NDArray[Any], others: NDArray[Any]) -> float:
    """Spearman's correlation; 0 for few numbers, or where one side is constant."""
    if len(numbers) < FEW or len({*numbers.tolist()}) < 3 or len({*others.tolist()}) < 3:  # noqa: PLR2004
        return 0.0
    return float(stats.spearmanr(numbers, others).statistic)


def _of_context(prepared: Prepared, schema: Schema) -> Iterator[str]:
    """Contexts that are as good as an id of the interaction."""
    if prepared.contexts is None:
        return
    n_rows = sum(prepared.counts[part] for part in PARTS)
    events = prepared.stored(*PARTS).block(0).events
    for feature in schema.context_features:
        values = prepared.contexts[feature.column]
        n_distinct = values.nunique()
        if isinstance(feature, Categorical) and n_distinct > LIKE_AN_ID * n_rows:
            yield (
                f"context feature {feature.name!r} has {n_distinct:,} values for {n_rows:,} "
                "interactions: it is an id of the interaction, which no request can bring; leave "
                "it out"
            )
            continue
        if events is None:
            continue
        name = f"context feature {feature.name!r}"
        moments = events.moments
        if isinstance(feature, Numeric):
            numbers = values.to_numpy(dtype=np.float64)[moments]
            given = ~np.isnan(numbers) & ~np.isnan(events.times)
            if abs(correlation(numbers[given], events.times[given])) > FOLLOWS:
                yield (
                    f"{name} follows the time: requests to come bring values that lie beyond all "
                    "that training has seen; leave it out, or take the hour or the weekday"
                )
            continue
        codes = pd.factorize(values.astype(object))[0][moments]
        if association(codes, events.positive.astype(np.int64)) > DECIDES:
            yield (
                f"{name} decides whether a row is a positive: it is known only after the choice, "
                "and no request can bring it; leave it out"
            )


def _of_pairs(prepared: Prepared, schema: Schema) -> Iterator[str]:
    """Features of users that decide one of items: nothing else can be recommended then."""
    columns = {side: list(_tokens(prepared, schema, side)) for side in SIDES}
    if not columns["user"] or not columns["item"]:
        return
    rows = prepared.stored("train").block(0)
    users = np.repeat(rows.users, np.diff(rows.matrix.indptr))
    items = rows.matrix.indices
    if len(users) > SAMPLE:
        chosen = np.random.default_rng(0).choice(len(users), SAMPLE, replace=False)
        users, items = users[chosen], items[chosen]
    for (user_name, mine), (item_name, its) in product(columns["user"], columns["item"]):
        strength = association(mine[users], its[items])
        if strength > DECIDES:
            yield (
                f"user feature {user_name!r} decides item feature {item_name!r} in nearly every "
                f"interaction ({strength:.2f} of 1): whatever else is learned, hardly anything "
                "else is recommended; better a filter by it, and then leave one of the two out"
            )


def _tokens(
    prepared: Prepared, schema: Schema, side: Side
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The categorical features of a side, but ids: each row's token by number, -1 if missing."""
    table = prepared.tables[side]
    for feature in schema.features(side):
        if not isinstance(feature, Categorical) or feature.column == schema.id_column(side):
            continue
        if feature.column in table:
            codes, tokens = pd.factorize(table[feature.column].astype(object))
            if 1 < len(tokens) <= LIKE_AN_ID * max(len(table), 1):
                yield feature.name, codes


def association(mine: NDArray[np.int64], its: NDArray[np.int64]) -> float:
    """Cramer's V, corrected for chance: 0 if independent, 1 if one decides the other."""
    given = (mine >= 0) & (its >= 0)
    if given.sum() < FEW:
        return 0.0
    table = pd.crosstab(mine[given], its[given]).to_numpy()
    n, (rows, columns) = table.sum(), table.shape
    if min(rows, columns) < 2:  # noqa: PLR2004
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    phi = float(((table - expected) ** 2 / expected).sum() / n)
    phi = max(phi - (rows - 1) * (columns - 1) / max(n - 1, 1), 0.0)
    rows_left = rows - (rows - 1) ** 2 / max(n - 1, 1)
    columns_left = columns - (columns - 1) ** 2 / max(n - 1, 1)
    return float(np.sqrt(phi / max(min(rows_left, columns_left) - 1, 1e-9)))
