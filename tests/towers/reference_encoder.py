"""The encoder in plain Python, value by value, to hold the graph against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from towers.features.kinds import Categorical, Cross, Feature, History, Numeric, Trend, Vector
from towers.features.schema import Schema, space_of
from towers.features.vocabulary import Buckets, Hashed, Scalar, Tokens, Vocabulary

Query = dict[str, Any]
"""One user's raw features by name; a list for a feature with several values."""
Bag = dict[int, float]
"""x_i by row of the feature table."""
HASHED = {"a": 4, "Rome": 4, "日本": 3, "🎈": 2, "x\0y": 0, " ": 0, "7": 3}
"""Buckets of 5 that must never change: a published model's rows depend on them."""


def is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def reference(schema: Schema, vocabulary: Vocabulary, query: Query) -> Bag:
    """Encode one query by the table in `towers.features.schema`, value by value."""
    bag: Bag = {}
    past = set()
    for feature in schema.features("user"):
        for row, x in reference_entries(feature, schema, vocabulary, query):
            bag[row] = bag.get(row, 0.0) + x
            if isinstance(feature, History):
                past.add(row)
    if set(bag) <= set(vocabulary.oov_rows):
        stand_in = vocabulary.default_user_row
    else:
        stand_in = None if past else vocabulary.newcomer_row
    if stand_in is not None:
        bag[stand_in] = 1.0
    return bag


def together(tokens: list[Any]) -> str | None:
    """The token of a cross."""
    return None if any(map(is_missing, tokens)) else " & ".join(map(str, tokens))


def reference_entries(
    feature: Feature, schema: Schema, vocabulary: Vocabulary, query: Query
) -> list[tuple[int, float]]:
    space = vocabulary.spaces[space_of(feature, side="user", schema=schema)]
    value: Any
    if isinstance(feature, Cross):
        value = together([query.get(column) for column in feature.columns])
    else:
        value = query.get(feature.column)
    if isinstance(feature, (Numeric, Trend)):
        if is_missing(value):
            return []
        number = float(np.float32(value))
        if isinstance(space, Scalar):
            x, limit = (number - space.mean) / space.std, space.limit or math.inf
            return [(space.row, min(max(x, -limit), limit))]
        assert isinstance(space, Buckets)
        return [(space.first_row + sum(number >= cut for cut in space.boundaries), 1.0)]
    assert isinstance(space, (Tokens, Hashed))
    if isinstance(feature, (Categorical, Cross)):
        return [] if is_missing(value) else [(row_of(space, value), 1.0)]
    assert not isinstance(feature, Vector)
    values = value or []
    if isinstance(feature, History):
        assert isinstance(space, Tokens)
        return reference_history(feature, space, values)
    weights = list(query.get(feature.weights) or []) if feature.weights else []
    weights += [None] * (len(values) - len(weights))
    weighted = [
        (row_of(space, token), 1.0 if is_missing(weight) else float(np.float32(weight)))
        for token, weight in zip(values, weights, strict=False)
        if not is_missing(token)
    ]
    norm = {
        "sum": 1.0,
        "mean": sum(abs(w) for _, w in weighted),
        "sqrtn": math.sqrt(sum(w**2 for _, w in weighted)),
    }[feature.combiner]
    return [(row, w / norm if norm else 0.0) for row, w in weighted]


def reference_history(feature: History, space: Tokens, items: list[Any]) -> list[tuple[int, float]]:
    places = {token: place for place, token in enumerate(space.tokens.tolist())}
    last = [item for place, item in enumerate(items) if item not in items[place + 1 :]]
    known = [places[item] for item in last if item in places][-feature.latest :]
    total = sum(space.counts.tolist())
    squares = sum(n * n ** (-2 * feature.power) for n in space.counts.tolist())
    unit = math.sqrt(total / squares)
    half_life = feature.half_life or math.inf
    decayed = [2 ** (-later / half_life) for later in reversed(range(len(known)))]
    length = math.sqrt(sum(weight**2 for weight in decayed))
    return [
        (
            int(space.rows[place]),
            unit * int(space.counts[place]) ** -feature.power * weight / length,
        )
        for place, weight in zip(known, decayed, strict=True)
    ]


def row_of(space: Tokens | Hashed, token: Any) -> int:
    if isinstance(space, Hashed):
        return space.first_row + HASHED[token]
    rows = dict(zip(space.tokens.tolist(), space.rows.tolist(), strict=True))
    return int(rows.get(token, space.oov_row))
