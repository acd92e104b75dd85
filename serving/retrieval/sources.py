"""Sources: those whom a question is asked for, by id or by features, and what they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.explanation.active_features import raw_features
from serving.retrieval.parts import Parts
from serving.search.index import Rows
from towers.errors import QueryError
from towers.features.schema import Side

NOTHING: Rows = np.empty((0, 0), dtype=np.int64)


def find_sources(
    parts: Parts,
    side: Side,
    *,
    ids: Sequence[int | str] | None,
    features: Mapping[str, Sequence[Any]] | None,
) -> tuple[Mapping[str, NDArray[Any]] | None, Rows]:
    """Find sources by id, and pack their features where those stored do not do.

    Raises:
        QueryError: there is neither an id nor features, or both, and not of the context alone.
    """
    context = [one.name for one in parts.schema.context_features if side == "user"]
    both = ids is not None and features is not None
    if (both and not (features and set(features) <= set(context))) or (
        ids is None and features is None
    ):
        beside = f"; beside an id, only features of the context {context}" if context else ""
        raise QueryError(
            f"query: expected either the id or the features of the {side}, received "
            f"{'both' if both else 'neither'}{beside}"
        )
    if ids is None:
        return _described(parts, side, features or {})
    rows = parts.known_rows(side, ids)
    if not features:
        return None, rows
    known = raw_features(parts, side, rows)
    return parts.tower(side).pack({**known, **features}, size=len(rows)), rows


def own_rows(parts: Parts, side: Side, packed: Mapping[str, NDArray[Any]], *, size: int) -> Rows:
    """The rows of sources whose features include their id; -1 where it is unknown."""
    id_input = parts.schema.id_input(side)
    if id_input is not None:
        return parts.catalogue(side).find(packed[id_input])
    return np.full(size, -1, dtype=np.int64)


def past_items(
    parts: Parts, side: Side, rows: Rows, *, packed: Mapping[str, NDArray[Any]] | None
) -> Rows:
    """The items in the histories given, now or when a user was added, [n, m]."""
    names = parts.seen_histories
    if side == "item" or not names:
        return NOTHING
    if packed is None:
        records = [parts.catalogue(side).record(int(row)) for row in rows]
        if not any(records):
            return NOTHING
        columns = parts.history_columns
        given = {n: [record.get(columns[n] or "") for record in records] for n in names}
        packed = parts.tower(side).pack(given, size=len(rows))
    items = np.concatenate([packed[name] for name in names], axis=1)
    return parts.catalogue("item").find(items.ravel()).reshape(items.shape)


def _described(
    parts: Parts, side: Side, columns: Mapping[str, Sequence[Any]]
) -> tuple[Mapping[str, NDArray[Any]], Rows]:
    """Pack raw features, among which may be the id, and find the rows of those that are known.

    Without any feature there is one source, about which nothing is known.
    """
    size = next((len(values) for values in columns.values()), 1)
    packed = parts.tower(side).pack(columns, size=size)
    return packed, own_rows(parts, side, packed, size=size)
