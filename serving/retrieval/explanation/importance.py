"""FieldImportance: which feature fields carry the scores, over what users would be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from serving.retrieval.explanation.active_features import (
    ActiveFeatures,
    Floats,
    known_features,
)
from serving.retrieval.explanation.terms import KINDS, Terms, split_score
from serving.retrieval.notebook import notebook_html
from serving.retrieval.parts import Parts
from serving.search.index import Rows
from towers.directions import DIRECTIONS
from towers.errors import QueryError
from towers.features.schema import Side

USERS_TOGETHER = 256
"""Users whose features are held at once."""

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
    are those of `Explanation.fields`; `mean`, `mean_abs`, `p10` and `p90` are of the contributions
    over the samples, and `share` is that of the sum of all `mean_abs`."""
    samples: pd.DataFrame
    """One row a user and an item that it would be shown: their ids as `user` and `item`, the
    `score`, and by the number of each row of `fields` what that contributes."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        title = f"u2i, version {self.version}: what carries {len(self.samples):,} scores"
        return notebook_html(self.fields, title=title)

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
        BundleError: as `known_features`.
    """
    place, column = np.nonzero(shown >= 0)
    item_rows, item = np.unique(shown[place, column], return_inverse=True)
    items, _ = known_features(parts, "item", item_rows)
    sums = []
    for start in range(0, len(users), USERS_TOGETHER):
        stop = start + USERS_TOGETHER
        features, _ = known_features(parts, "user", users[start:stop])
        for number in np.flatnonzero((place >= start) & (place < stop)):
            pair = features[place[number] - start], items[item[number]]
            sums.append(_sum_fields(parts, *pair))
    values = _by_sample(sums)
    keys = _named(parts, values.columns.to_frame(index=False))
    samples = pd.DataFrame(
        {
            "user": parts.catalogue("user").ids(users[place]),
            "item": parts.catalogue("item").ids(item_rows[item]),
        }
    )
    return _describe(
        keys, values.to_numpy(), samples=samples, version=parts.bundle.version, n_users=len(users)
    )


def _sum_fields(parts: Parts, user: ActiveFeatures, item: ActiveFeatures) -> Terms:
    """Split a score of u2i, and sum its terms by the numbers of the fields."""
    fields = (parts.feature_names.fields(features.rows) for features in (user, item))
    return split_score(DIRECTIONS["u2i"], user, item).group_by(*fields)


def _by_sample(sums: list[Terms]) -> pd.DataFrame:
    """Set the sums of n samples beside each other; 0 where a sample has no such term.

    Returns:
        One row a sample, and one column a kind with its fields.
    """
    terms = Terms.concat(sums)
    sample = np.repeat(np.arange(len(sums)), [len(one) for one in sums])
    table = pd.DataFrame(vars(terms) | {"sample": sample}).set_index(["sample", *KEYS])["value"]
    wide: pd.DataFrame = table.unstack(KEYS, fill_value=0)
    return wide.reindex(range(len(sums)), fill_value=0.0)


def _named(parts: Parts, keys: pd.DataFrame) -> pd.DataFrame:
    """Write kinds and fields of u2i by their names, None for no field."""

    def fields(column: str, side: Side) -> list[str | None]:
        names = parts.feature_names
        return [None if one < 0 else names.field(one, side=side) for one in keys[column].tolist()]

    columns = {
        "kind": [KINDS[kind] for kind in keys["kind"]],
        "source": fields("source", "user"),
        "target": fields("target", "item"),
        "other": fields("other", "item"),
    }
    return pd.DataFrame(columns, columns=KEYS, dtype=object)


def _describe(
    keys: pd.DataFrame, values: Floats, *, samples: pd.DataFrame, version: int, n_users: int
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
    return FieldImportance(version, n_users, fields, samples)
