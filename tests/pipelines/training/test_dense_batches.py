"""The vectors of a batch: those that the encoder's graph gives for the same users and histories."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from pipelines.config import TrainingConfig
from pipelines.data.blocks import HeldInteractions
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.training.folds import FoldBatches
from towers.features.encoder import Encoder
from towers.features.kinds import Categorical, Features, History, Vector
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Schema
from towers.typed import parse

N_USERS, N_ITEMS = 9, 14


def make_dataset() -> Dataset:
    """Every user and every item has a vector of its own, by which batches can be read."""
    rng = np.random.default_rng(2)
    schema = Schema(
        user_id="user_id",
        item_id="item_id",
        user=Features(features=(History(latest=4), Vector(column="taste", scale="none"))),
        item=Features(features=(Categorical(column="item_id"), Vector(column="cover"))),
    )
    users = pd.DataFrame({"user_id": range(N_USERS), "taste": list(rng.normal(size=(N_USERS, 2)))})
    items = pd.DataFrame({"item_id": range(N_ITEMS), "cover": list(rng.normal(size=(N_ITEMS, 3)))})
    positives = rng.random((N_USERS, N_ITEMS)) < 0.5
    matrix = sparse.csr_array(positives.astype(np.float32))
    return assemble_dataset(schema, users=users, items=items, interactions=HeldInteractions(matrix))


def test_queries_bring_the_vectors_of_their_past_items_and_never_of_their_positives() -> None:
    dataset = make_dataset()
    encoder = Encoder(dataset.schema, dataset.vocabulary, side="user", pasts=dataset.pasts)
    inputs = input_dtypes(dataset.schema, dataset.vocabulary, side="user")
    tastes, covers = dataset.dense("user").x, dataset.dense("item").x
    raw = {"batch_size": 7, "folds": 3, "history_dropout": 0.0, "contexts": "others"}
    config = parse(TrainingConfig, raw, where="config")
    matrix = dataset.interactions.block(0).matrix
    n_past = 0
    for batch in FoldBatches.build(dataset, config, mined=None, seed=1).epoch(0):
        found = np.asarray(batch["user_dense"], dtype=np.float32)
        items = np.asarray(batch["item_dense"], dtype=np.float32)
        rows = [int(np.flatnonzero((covers == cover).all(axis=1))[0]) for cover in items]
        users = [int(np.flatnonzero((tastes == one).all(axis=1))[0]) for one in found[:, :2]]
        positives: list[set[int]] = [set() for _ in users]
        for query, item in zip(batch["positive_query"], batch["positive_item"], strict=True):
            positives[int(query)].add(rows[int(item)])
        past = [
            [item for item in matrix[[user]].indices.tolist() if item not in mine]
            for user, mine in zip(users, positives, strict=True)
        ]
        n_past += sum(map(len, past))
        packed = pack(
            {"history": past, "taste": list(tastes[users])}, inputs=inputs, size=len(past)
        )
        expected = encoder.dense(packed)
        assert expected is not None
        np.testing.assert_allclose(found, expected.x, rtol=1e-5, atol=1e-6)
        assert batch["rows"][: found.shape[1]].tolist() == list(encoder.dense_rows)
    assert n_past > N_USERS
