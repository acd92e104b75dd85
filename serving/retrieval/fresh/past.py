"""FreshPast: what items that came after a version was published bring to histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from serving.retrieval.parts import Parts
from towers.features.past_items import PastItems


def read_past(
    parts: Parts, ids: NDArray[Any], packed: Mapping[str, NDArray[Any]]
) -> PastItems | None:
    """Say what items bring to histories, by their packed features.

    None where histories cannot know more items than were published: where users have none, or the
    version was published before towers could tell what an item's features are.
    """
    tower = parts.tower("item")
    if parts.schema.history is None or not tower.explains:
        return None
    found = tower.active_features(packed)
    is_active = found["row"] >= 0
    starts = np.concatenate([[0], np.cumsum(is_active.sum(axis=1))])
    entries = (found["x"][is_active], found["row"][is_active], starts)
    bags = sparse.csr_array(entries, shape=(len(ids), parts.vocabulary.n_rows))
    past = PastItems.build(parts.schema, parts.vocabulary, ids=ids, item_bags=bags)
    return past.take(np.flatnonzero(np.diff(past.bags.indptr)))


def put_past(parts: Parts, past: PastItems) -> None:
    """Have the histories of the version know these items too, beside those put before."""
    both = past if parts.fresh_past is None else parts.fresh_past.add(past)
    parts.fresh_past = both
    parts.tower("user").put_past_items(both)
