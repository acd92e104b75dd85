"""The active features of users and items, which their vectors are sums of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.parts import Parts
from serving.search.index import Rows, Vectors
from towers import fm_numpy
from towers.errors import BundleError
from towers.features.schema import Side

Floats = NDArray[np.float64]
Packed = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-5
"""How far a coordinate may be from the stored one, in shares of the largest sum of terms' sizes."""

ENCODED_TOGETHER = 256
"""Users or items of one call of a tower at most, as all are padded to the longest."""


@dataclass(frozen=True, eq=False)
class ActiveFeatures:
    """The features of one user or item whose value is not 0, in float64."""

    side: Side
    rows: Rows
    """Of the feature table, [n]; none twice."""
    x: Floats
    """Their values, [n]."""
    v: Floats
    """The vectors that the coupled part sums, [n, d]."""
    w: Floats
    """Their first-order weights, [n]; 0 for a user, whose own do not count."""
    left: Floats
    """<left_i, right_j> x_i x_j is what features i and j of one item add to its score, [n, e]."""
    right: Floats
    """[n, e]; both are v, where the version is a plain factorization machine."""

    def vector(self) -> Floats:
        """V_user or V_item, [1 + d]."""
        x = self.x[np.newaxis]
        first = np.ones(1)
        if self.side == "item":
            within = fm_numpy.coupled_pairs(x, self.left, self.right)
            first = fm_numpy.first_order(x, self.w) + within
        return np.concatenate([first, fm_numpy.pooled(x, self.v)[0]])

    def gives(self, stored: Vectors) -> bool:
        """Whether a vector [1 + d], which was summed in float32, is the one of these features."""
        x = np.abs(self.x[np.newaxis])
        sizes = fm_numpy.pooled(x, np.abs(self.v))[0]
        left, right = (fm_numpy.pooled(x, np.abs(one))[0] for one in (self.left, self.right))
        bias = fm_numpy.first_order(x, np.abs(self.w)) + left @ right
        first = bias if self.side == "item" else np.ones(1)
        # a vector's own terms, which are summed in its place, are longer than their sum
        sizes = np.full_like(sizes, sizes.max(initial=0.0))
        allowed = TOLERANCE * np.concatenate([first, sizes]) + np.finfo(np.float32).tiny
        return bool((np.abs(self.vector() - stored) <= allowed).all())


def encode_features(parts: Parts, side: Side, packed: Packed) -> list[ActiveFeatures]:
    """Encode packed features of n users or items.

    Raises:
        BundleError: the version was published before towers could tell.
    """
    found = parts.tower(side).active_features(packed)
    found.setdefault("w", np.zeros_like(found["x"]))
    for name in ("left", "right"):
        found.setdefault(name, found["v"])
    names = ("x", "v", "w", "left", "right")
    encoded = []
    for rows, *parameters in zip(found["row"], *(found[name] for name in names), strict=True):
        (active,) = np.nonzero(rows >= 0)
        order = active[parts.feature_names.order(rows[active])]
        values = (parameter[order].astype(np.float64) for parameter in parameters)
        encoded.append(ActiveFeatures(side, rows[order], *values))
    return encoded


def known_features(
    parts: Parts, side: Side, rows: Rows
) -> tuple[list[ActiveFeatures], list[Packed]]:
    """Encode users or items that the version has again, by the raw features that it keeps of them.

    Args:
        parts: the version.
        side: user or item.
        rows: theirs, [n]; none -1.

    Returns:
        The active features of each, and the packed features that they come from.

    Raises:
        BundleError: the version was published before towers could tell, or the features of one do
            not give its stored vector.
    """
    encoded: list[ActiveFeatures] = []
    sources: list[Packed] = []
    for start in range(0, len(rows), ENCODED_TOGETHER):
        chunk = rows[start : start + ENCODED_TOGETHER]
        packed = parts.tower(side).pack(raw_features(parts, side, chunk), size=len(chunk))
        encoded += encode_features(parts, side, packed)
        sources += [{name: x[[place]] for name, x in packed.items()} for place in range(len(chunk))]
    catalogue = parts.catalogue(side)
    for row, features in zip(rows.tolist(), encoded, strict=True):
        if not features.gives(catalogue.vectors[row]):
            (id,) = catalogue.ids(np.array([row])).tolist()
            raise BundleError(
                f"{parts.bundle.path}: expected the columns and the history of {side} "
                f"{id!r} to give its stored vector, received another; explain it "
                "by features instead, or publish again"
            )
    return encoded, sources


def raw_features(parts: Parts, side: Side, rows: Rows) -> dict[str, Sequence[Any]]:
    """The raw features, by name, of users or items that the version has.

    Of a fresh one, what it was put in with; of another, the columns of its table and, for a user,
    the items of each history in training from old to new.
    """
    catalogue = parts.catalogue(side)
    records = [catalogue.record(int(row)) for row in rows]
    n_published = len(catalogue.published.ids)
    features: dict[str, Sequence[Any]] = {}
    columns = parts.schema.columns(side)
    for name in parts.tower(side).inputs:
        key: str | None = columns.get(name, name)
        if side == "user" and name in parts.history_columns:
            key = parts.history_columns[name]
            past = parts.past(name)
            published: list[Any] = [parts.items.ids.take(past.of("user", int(row))) for row in rows]
        elif columns.get(name) in catalogue.columns:
            column = catalogue.published.column(columns[name])
            published = [column[row].as_py() if row < n_published else None for row in rows]
        else:
            published = [None] * len(rows)
        features[name] = [
            record.get(key or "") if record else value
            for record, value in zip(records, published, strict=True)
        ]
    return features
