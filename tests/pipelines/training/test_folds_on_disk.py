"""Fold training on interactions that stay on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.behaviours import resolve
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.store_blocks import StoredInteractions, block_file, finish_blocks, write_block
from tests.pipelines.training.folds_support import (
    DATASET,
    N_ITEMS,
    N_USERS,
    decode,
    epoch,
    items_of,
    make_batches,
    same,
)


def stored(folder: Path, *, n_blocks: int) -> Dataset:
    """The data set with its interactions on disk."""
    matrix = every_positive(DATASET.interactions)
    block_of_user = np.arange(N_USERS, dtype=np.int32) % n_blocks
    for number in range(n_blocks):
        chosen = np.flatnonzero(block_of_user == number)
        rows = matrix[chosen].tocoo()
        columns = {"user_row": chosen[rows.coords[0]], "item_row": rows.coords[1]}
        columns |= {"weight": rows.data, "part": np.zeros(rows.nnz, dtype=np.int8)}
        columns["timestamp"] = pa.nulls(rows.nnz, pa.float64())
        columns["is_positive"] = np.ones(rows.nnz, dtype=np.bool_)
        columns["behaviour"] = np.zeros(rows.nnz, dtype=np.int8)
        columns["moment"] = np.zeros(rows.nnz, dtype=np.int32)
        write_block(block_file(folder, number), pa.table(columns))
    finish_blocks(
        folder,
        block_of_user=block_of_user,
        n_items=N_ITEMS,
        n_blocks=n_blocks,
        has_times=False,
        behaviours=resolve({}, has_event=False, has_rating=False),
    )
    return dataclasses.replace(DATASET, interactions=StoredInteractions(folder, ("train",)))


def test_interactions_on_disk_give_the_same_batches(tmp_path: Path) -> None:
    on_disk = make_batches(dataset=stored(tmp_path, n_blocks=1))
    assert same(epoch(on_disk, 2), epoch(make_batches(), 2))


@pytest.mark.parametrize("contexts", ["past", "others"])
def test_an_epoch_trains_every_positive_once_however_many_blocks(
    tmp_path: Path, contexts: str
) -> None:
    batches = make_batches(
        dataset=stored(tmp_path, n_blocks=3), contexts=contexts, batch_size=5, history_dropout=0.0
    )
    found = epoch(batches)
    assert len(found) == batches.n_batches
    decoded = [decode(batch) for batch in found]
    trained = [
        (user, item)
        for batch in decoded
        for user, positives in zip(batch.users, batch.positives, strict=True)
        for item, _ in positives
    ]
    expected = [(user, item) for user in range(N_USERS) for item in items_of(user)]
    assert sorted(trained) == sorted(expected)
    blocks = [{user % 3 for user in batch.users} for batch in decoded]
    assert all(len(block) == 1 for block in blocks)  # a batch is of one block's users
