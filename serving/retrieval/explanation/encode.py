"""The bags of users and items: of raw features, and of those that a version has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.retrieval.explanation.bag import Bag, Packed
from serving.retrieval.parts import Parts
from serving.search.index import Rows
from towers.errors import BundleError
from towers.schema import Side

ENCODED_TOGETHER = 256
"""Bags of one call of a tower at most, as all are padded to the longest."""


def encode_bags(parts: Parts, side: Side, packed: Packed) -> list[Bag]:
    """Encode packed features as bags.

    Raises:
        BundleError: the version was published before towers could tell.
    """
    found = parts.tower(side).bags(packed)
    w = found.get("w", np.zeros_like(found["x"]))
    bags = []
    for rows, x, v, weights in zip(found["row"], found["x"], found["v"], w, strict=True):
        is_in = rows >= 0
        entries = (part[is_in].astype(np.float64) for part in (x, v, weights))
        bags.append(Bag(rows[is_in], *entries))
    return bags


def known_bags(parts: Parts, side: Side, rows: Rows) -> tuple[list[Bag], list[Packed]]:
    """Rebuild the bags of users or items that the version has, and the features they come from.

    Args:
        parts: the version.
        side: user or item.
        rows: theirs, [n]; none -1.

    Raises:
        BundleError: the version was published before towers could tell, or a bag is not the one
            that a stored vector was computed from.
    """
    bags: list[Bag] = []
    sources: list[Packed] = []
    for start in range(0, len(rows), ENCODED_TOGETHER):
        chunk = rows[start : start + ENCODED_TOGETHER]
        packed = parts.tower(side).pack(known_features(parts, side, chunk), size=len(chunk))
        bags += encode_bags(parts, side, packed)
        sources += [{name: x[[place]] for name, x in packed.items()} for place in range(len(chunk))]
    catalogue = parts.catalogue(side)
    for row, bag in zip(rows.tolist(), bags, strict=True):
        if bag.differs(catalogue.vectors[row], side=side):
            (id,) = catalogue.ids(np.array([row])).tolist()
            raise BundleError(
                f"{parts.bundle.path}: expected the columns and the history of {side} "
                f"{id!r} to give its stored vector, received another; explain it "
                "by features instead, or publish again"
            )
    return bags, sources


def known_features(parts: Parts, side: Side, rows: Rows) -> dict[str, Sequence[Any]]:
    """The raw features, by name, of users or items that the version has.

    Of a fresh one, what it was put in with; of another, the columns of its table and, for a user,
    the items of the training positives from old to new.
    """
    catalogue = parts.catalogue(side)
    records = [catalogue.record(int(row)) for row in rows]
    n_published = len(catalogue.published.ids)
    features: dict[str, Sequence[Any]] = {}
    columns = parts.schema.columns(side)
    for name in parts.tower(side).inputs:
        if side == "user" and name == parts.history:
            published: list[Any] = [
                parts.items.ids.take(parts.seen.of("user", int(row))) for row in rows
            ]
        elif columns.get(name) in catalogue.columns:
            column = catalogue.published.column(columns[name])
            published = [column[row].as_py() if row < n_published else None for row in rows]
        else:
            published = [None] * len(rows)
        features[name] = [
            record.get(columns.get(name, name)) if record else value
            for record, value in zip(records, published, strict=True)
        ]
    return features
