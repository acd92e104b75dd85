"""FieldImportance: which feature fields carry the scores, over what users would be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from serving.retrieval.explanation.bag import Floats
from serving.retrieval.explanation.encode import known_bags
from serving.retrieval.explanation.feature_names import FeatureNames
from serving.retrieval.parts import Parts
from serving.search.index import Rows
from towers.errors import QueryError
from towers.schema import Side

USERS_TOGETHER = 256
"""Users whose bags are held at once."""

LOW, HIGH = 10, 90
"""The percentiles between which most samples lie."""

KEYS = ["kind", "source", "target", "other"]


@dataclass(frozen=True, eq=False)
class FieldImportance:
    """The terms of many scores of u2i, each summed by kind and fields."""

    version: int
    n_users: int
    fields: pd.DataFrame
    """One row a kind and its fields, most important first. `kind`, `source`, `target` and `other`
    are those of `FieldPart`; `mean`, `mean_abs`, `p10` and `p90` are of the contributions over the
    samples, and `share` is that of the sum of all `mean_abs`."""
    samples: pd.DataFrame
    """One row a user and an item that it would be shown: their ids as `user` and `item`, the
    `score`, and by the number of each row of `fields` what that contributes."""

    def to_dict(self) -> dict[str, Any]:
        """The overall view as plain values."""
        return {
            "version": self.version,
            "users": self.n_users,
            "samples": len(self.samples),
            "fields": self.fields.to_dict(orient="records"),
        }


def draw_users(parts: Parts, n: int, *, seed: int) -> Rows:
    """Draw the rows of n users, or of all if there are fewer.

    Raises:
        QueryError: n is below 1.
    """
    if n < 1:
        raise QueryError(f"users: expected at least 1, received {n}")
    rows = np.flatnonzero(parts.catalogue("user").is_present)
    return np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False)


def explain_fields(parts: Parts, users: Rows, *, shown: Rows) -> FieldImportance:
    """Sum the terms of the scores of u2i by kind and fields.

    Args:
        parts: the version.
        users: their rows, [n].
        shown: the rows of the items of each, [n, k], -1 for none.

    Raises:
        BundleError: as `known_bags`.
    """
    place, column = np.nonzero(shown >= 0)
    item_rows, item = np.unique(shown[place, column], return_inverse=True)
    items = _sum_fields(parts, "item", item_rows)
    cross: list[Floats] = []
    for start in range(0, len(users), USERS_TOGETHER):
        sums = _sum_fields(parts, "user", users[start : start + USERS_TOGETHER])
        here = (place >= start) & (place < start + USERS_TOGETHER)
        pooled = sums.pooled[place[here] - start], items.pooled[item[here]]
        cross.append(np.einsum("nfd,ngd->nfg", *pooled).reshape(np.count_nonzero(here), -1))
    first, second = np.triu_indices(len(items.names))
    within = items.pairs[:, first, second]
    values = np.concatenate([items.first_order[item], within[item], np.concatenate(cross)], axis=1)
    keys = _keys(_field_names(parts.feature_names, "user"), items.names)
    user_ids = parts.catalogue("user").ids(users[place])
    item_ids = parts.catalogue("item").ids(item_rows[item])
    samples = pd.DataFrame({"user": user_ids, "item": item_ids})
    return _importance(keys, values, samples=samples, version=parts.bundle.version, n=len(users))


@dataclass(frozen=True, eq=False)
class _FieldSums:
    """The bags of n users or items, summed by field."""

    names: list[str]
    """The fields, [f]."""
    first_order: Floats
    """w x, [n, f]."""
    pooled: Floats
    """v x, [n, f, d]."""
    pairs: Floats
    """<v, v'> x x' summed over the pairs of each bag, [n, f, f] and symmetric."""


def _sum_fields(parts: Parts, side: Side, rows: Rows) -> _FieldSums:
    """Sum the bags of some users or items by field."""
    names = parts.feature_names
    bags, _ = known_bags(parts, side, rows)
    numbers = names.fields_of(side)
    shape = len(bags), len(numbers)
    width = parts.catalogue(side).vectors.shape[1] - 1
    first_order, squares, pooled = np.zeros(shape), np.zeros(shape), np.zeros((*shape, width))
    for place, bag in enumerate(bags):
        fields = np.searchsorted(numbers, names.fields(bag))
        np.add.at(first_order[place], fields, bag.w * bag.x)
        np.add.at(squares[place], fields, np.sum(bag.terms**2, axis=1))
        np.add.at(pooled[place], fields, bag.terms)
    pairs = np.einsum("nfd,ngd->nfg", pooled, pooled)
    own = np.arange(len(numbers))
    pairs[:, own, own] = (pairs[:, own, own] - squares) / 2
    return _FieldSums(_field_names(names, side), first_order, pooled, pairs)


def _field_names(names: FeatureNames, side: Side) -> list[str]:
    """The names of a side's fields, in order."""
    return [names.field(int(number), side=side) for number in names.fields_of(side)]


def _keys(users: Sequence[str], items: Sequence[str]) -> pd.DataFrame:
    """The kinds and fields of the columns of contributions, in their order."""
    keys: list[tuple[str, str | None, str, str | None]]
    keys = [("first_order", None, field, None) for field in items]
    keys += [
        ("item_pair", None, first, second)
        for number, first in enumerate(items)
        for second in items[number:]
    ]
    keys += [("user_item", user, item, None) for user in users for item in items]
    return pd.DataFrame(keys, columns=KEYS, dtype=object)


def _importance(
    keys: pd.DataFrame, values: Floats, *, samples: pd.DataFrame, version: int, n: int
) -> FieldImportance:
    """Describe contributions [n_samples, n_keys]; those that float32 cannot tell are left out."""
    sizes = np.abs(values).mean(axis=0) if len(values) else np.zeros(values.shape[1])
    is_large = sizes > np.finfo(np.float32).eps * sizes.sum()
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(is_large)]
    sizes, chosen = sizes[order], values[:, order]
    low, high = np.percentile(chosen, [LOW, HIGH], axis=0) if len(order) else (sizes, sizes)
    fields = keys.iloc[order].reset_index(drop=True)
    fields = fields.assign(
        share=sizes / sizes.sum(),
        mean_abs=sizes,
        mean=chosen.mean(axis=0) if len(order) else sizes,
        p10=low,
        p90=high,
    )
    samples = pd.concat([samples.assign(score=values.sum(axis=1)), pd.DataFrame(chosen)], axis=1)
    return FieldImportance(version, n, fields, samples)
