"""A small data set whose users and items can be told apart by their bags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipelines.config import RunConfig
from pipelines.dataset import Dataset, build_dataset
from pipelines.interactions import tables_from_frames
from towers.typed import parse

N_USERS, N_ITEMS, FOLDS = 24, 20, 3
SIZES = [0, 1, 2, 3, 4, 5, 7, 11] * 3
"""How many items each user has: none, fewer than folds, and more than the latest that count."""


def make_dataset(*, history: bool = True) -> Dataset:
    """Users and items that can be told apart by a number of their own."""
    rng = np.random.default_rng(0)
    user_features: list[dict[str, Any]] = [{"kind": "numeric", "column": "number"}]
    if history:
        user_features.append({"kind": "history", "latest": 4})
    config = parse(
        RunConfig,
        {
            "data": {
                "interactions": {"weight": "weight"},
                "users": {"id": "user_id"},
                "items": {"id": "item_id"},
            },
            "user": {"features": user_features},
            "item": {
                "features": [
                    {"kind": "categorical", "column": "item_id", "min_count": 3},
                    {"kind": "numeric", "column": "number"},
                ]
            },
        },
        where="config",
    )
    shares = np.arange(1.0, N_ITEMS + 1)  # popular items, and rare ones that a history leaves out
    pairs = [
        (user, item)
        for user, size in enumerate(SIZES)
        for item in rng.choice(N_ITEMS, size, replace=False, p=shares / shares.sum()).tolist()
    ]
    rng.shuffle(pairs)
    clicks = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    clicks["weight"] = rng.uniform(0.5, 2.0, len(pairs))
    tables = tables_from_frames(
        config,
        interactions=clicks,
        users=pd.DataFrame({"user_id": range(N_USERS), "number": np.arange(1.0, N_USERS + 1)}),
        items=pd.DataFrame({"item_id": range(N_ITEMS), "number": np.arange(1.0, N_ITEMS + 1)}),
    )
    return build_dataset(
        config.schema, users=tables.users, items=tables.items, interactions=tables.interactions
    )


DATASET = make_dataset()
