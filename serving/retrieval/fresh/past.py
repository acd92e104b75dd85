"""FreshPast: what items that came after a version was published bring to histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from serving.retrieval.parts import Parts
from serving.version.saved_models.names import DENSE
from towers.dense import Dense
from towers.features.past_items import PastItems


def read_past(
    parts: Parts, ids: NDArray[Any], packed: Mapping[str, NDArray[Any]]
) -> dict[str, PastItems]:
    """Say what items bring to each history, by their packed features.

    Nothing where histories cannot know more items than were published: where users have none, or
    the version was published before towers could tell what an item's features are.
    """
    tower = parts.tower("item")
    if not parts.schema.histories or not tower.explains:
        return {}
    found = tower.active_features(packed)
    vectors = parts.vocabulary.dense_rows("item")
    is_active = (found["row"] >= 0) & ~np.isin(found["row"], vectors)
    starts = np.concatenate([[0], np.cumsum(is_active.sum(axis=1))])
    entries = (found["x"][is_active], found["row"][is_active], starts)
    bags = sparse.csr_array(entries, shape=(len(ids), parts.vocabulary.n_rows))
    dense = Dense(found[DENSE], vectors.start) if vectors else None
    pasts = {}
    for history in parts.schema.histories:
        past = PastItems.build(
            parts.schema, parts.vocabulary, history=history, ids=ids, item_bags=bags, dense=dense
        )
        pasts[history.name] = past.take(np.flatnonzero(past.brings))
    return pasts


def put_past(parts: Parts, pasts: Mapping[str, PastItems]) -> None:
    """Have the histories of the version know these items too, beside those put before."""
    tower = parts.tower("user")
    if tower.adds_past_items:
        tower.put_past_items(pasts, how="add")
        return
    known = parts.fresh_past
    both = {name: known[name].add(past) if known else past for name, past in pasts.items()}
    parts.fresh_past = both
    tower.put_past_items(both, how="put")
