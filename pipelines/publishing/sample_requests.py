"""Sample requests: real queries of a run, with which a server warms up an exported SavedModel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.blocks import blocks_with
from pipelines.data.dataset import Dataset
from pipelines.data.events import past_of
from serving.version.saved_models.first_requests import BATCH_SIZES
from serving.version.saved_models.names import EXCLUDE, K
from towers.features.kinds import History
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Side

N_EXCLUDED = 2
"""How many ids a query of `top_k` excludes."""


def sample_features(
    dataset: Dataset, table: pd.DataFrame, *, side: Side, seed: int
) -> dict[str, NDArray[Any]]:
    """Sample users with histories, or items: each input of the side's tower, [n] or [n, m].

    `table` is that of the side.
    """
    size = min(max(BATCH_SIZES), len(table))
    rows = np.random.default_rng(seed).choice(len(table), size, replace=False).astype(np.int64)
    columns: dict[str, list[Any] | pd.Series[Any]] = {
        name: table[column].iloc[rows] for name, column in dataset.schema.columns(side).items()
    }
    for history in dataset.schema.histories if side == "user" else ():
        columns[history.name] = _histories(dataset, rows, history)
    inputs = input_dtypes(dataset.schema, dataset.vocabulary, side=side)
    return pack(columns, inputs=inputs, size=size)


def retrieval_queries(
    features: dict[str, NDArray[Any]], *, ids: NDArray[Any], k: int
) -> dict[str, dict[str, NDArray[Any]]]:
    """All inputs of both signatures of a retrieval model, by signature.

    Args:
        features: the features of n queries.
        ids: the ids of the candidates; the first ones are excluded.
        k: how many candidates are asked for.
    """
    n = len(next(iter(features.values())))
    exclude = np.tile(ids[:N_EXCLUDED], (n, 1))
    given = {K: np.full(n, k, np.int32), EXCLUDE: exclude}
    return {"serving_default": features, "top_k": features | given}


def _histories(dataset: Dataset, users: NDArray[np.int64], history: History) -> list[Any]:
    """The ids of the latest items of each user in a history, from old to new."""
    found: dict[int, list[Any]] = {}
    for block in blocks_with(dataset.interactions, users):
        matrix = block.matrix if history.behaviours is None else past_of(block, history)
        pasts = np.split(dataset.item_ids[matrix.indices], matrix.indptr[1:-1])
        for user, past in zip(block.users.tolist(), pasts, strict=True):
            found[user] = past[-history.latest :].tolist()
    return [found[user] for user in users.tolist()]
