"""A small data set whose users and items can be told apart by their bags, and its batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import RunConfig, TrainingConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import prepare
from pipelines.training.folds import Arrays, FoldBatches
from towers.features.vocabulary import Scalar
from towers.negatives import MinedNegatives
from towers.two_tower import BATCH_SPEC
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
            "split": {"test_fraction": 0.0, "validation_fraction": 0.0},
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
    frames = {
        "interactions": clicks,
        "users": pd.DataFrame({"user_id": range(N_USERS), "number": np.arange(1.0, N_USERS + 1)}),
        "items": pd.DataFrame({"item_id": range(N_ITEMS), "number": np.arange(1.0, N_ITEMS + 1)}),
    }
    with TemporaryDirectory() as folder:
        prepared = prepare(config, Path(folder, "prepared"), frames=frames)
        return assemble_dataset(
            config.schema,
            users=prepared.users,
            items=prepared.items,
            interactions=prepared.interactions("train"),
        )


DATASET = make_dataset()


DATASET_ITEMS = {bag.tobytes(): row for row, bag in enumerate(DATASET.item_bags.toarray())}


def items_of(user: int) -> list[int]:
    """A user's item rows, from old to new."""
    matrix = every_positive(DATASET.interactions)
    items: list[int] = matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]].tolist()
    return items


def make_mined() -> MinedNegatives:
    """Items that the user does not have, with padding, and each of them several times."""
    rng = np.random.default_rng(1)
    others = [np.setdiff1d(np.arange(N_ITEMS), items_of(user)) for user in range(N_USERS)]
    items = np.stack([rng.choice(np.append(others[user], -1), 12) for user in range(N_USERS)])
    return MinedNegatives(items=items.astype(np.int32), version=1, ranks=(1, 12))


def make_batches(
    *, mined: bool = True, dataset: Dataset = DATASET, seed: int = 5, **settings: Any
) -> FoldBatches:
    raw = {"batch_size": 10, "folds": FOLDS, "history_dropout": 0.0, "id_dropout": 0.0} | settings
    raw["negatives"] = {"uniform": 6, "popularity": 3, "mined": 4} | raw.get("negatives", {})
    config = parse(TrainingConfig, raw, where="config")
    return FoldBatches.build(dataset, config, mined=make_mined() if mined else None, seed=seed)


@dataclass(frozen=True)
class Decoded:
    """A batch in terms of user and item rows."""

    users: list[int]
    positives: list[list[tuple[int, float]]]
    """Of each query: item row and weight."""
    user_bags: NDArray[np.float32]
    items: list[int]
    shared: list[int]
    known: set[tuple[int, int]]
    """Query and item row."""
    mined: list[list[int]]


def dense(batch: Arrays, side: str, n: int) -> NDArray[np.float32]:
    """Bags [n, n_rows] over the whole feature table; no entry may come twice."""
    bags = np.zeros((n, DATASET.vocabulary.n_rows), dtype=np.float32)
    rows: Any = batch["rows"]
    at = [(int(query), int(rows[code])) for query, code in batch[f"{side}_indices"]]
    assert len(set(at)) == len(at)
    if at:
        bags[tuple(np.array(at).T)] = batch[f"{side}_values"]
    return bags


def decode(batch: Arrays) -> Decoded:
    n_queries = int(batch["n_queries"])
    user_bags = dense(batch, "user", n_queries)
    n_items = len(batch["item_popularity"])
    items = [DATASET_ITEMS[bag.tobytes()] for bag in dense(batch, "item", n_items)]
    number = DATASET.vocabulary.spaces["user.number"]
    assert isinstance(number, Scalar)
    static = DATASET.user_bags.toarray()[:, number.row]
    users = [int(np.flatnonzero(static == x)[0]) for x in user_bags[:, number.row]]
    positives: list[list[tuple[int, float]]] = [[] for _ in range(n_queries)]
    for query, item, weight in zip(
        batch["positive_query"], batch["positive_item"], batch["positive_weight"], strict=True
    ):
        positives[int(query)].append((items[int(item)], float(weight)))
    shared = items[: len(batch["shared_source"])]
    return Decoded(
        users=users,
        positives=positives,
        user_bags=user_bags,
        items=items,
        shared=shared,
        known={(int(query), shared[int(at)]) for query, at in batch["known"]},
        mined=[[items[int(i)] for i in row if i >= 0] for row in batch["mined_item"]],
    )


def epoch(batches: FoldBatches, number: int = 0) -> list[Arrays]:
    return list(batches.epoch(number))


def same(ours: list[Arrays], theirs: list[Arrays]) -> bool:
    return len(ours) == len(theirs) and all(
        np.array_equal(a[name], b[name])
        for a, b in zip(ours, theirs, strict=True)
        for name in BATCH_SPEC
    )
