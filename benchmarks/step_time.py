"""Time a training step against the number of items: a step must cost the batch, not the table.

Run: .venv/bin/python -m benchmarks.step_time

Makes interactions of the same number and batches of the same shape over item tables of 10^5 and of
10^7 rows, trains on both in turn, and prints the median step of each and their ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import tensorflow as tf
from scipy import sparse

from pipelines.config import ModelConfig, RunConfig, TrainingConfig
from pipelines.data.blocks import HeldInteractions
from pipelines.data.dataset import Dataset
from pipelines.table_config import DataConfig, InteractionsTable
from pipelines.training.fit import spec_of
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.features.kinds import Categorical, Features, History
from towers.features.past_items import PastItems
from towers.features.schema import Schema
from towers.features.vocabulary import Vocabulary
from towers.two_tower import TwoTower

USERS = 20_000
ITEMS_EACH = 20


def make_dataset(n_items: int, *, seed: int) -> Dataset:
    """Make users with uniformly drawn items, each item one row of the feature table."""
    rng = np.random.default_rng(seed)
    indptr = np.arange(USERS + 1, dtype=np.int64) * ITEMS_EACH
    items = rng.integers(n_items, size=USERS * ITEMS_EACH)
    weights = np.ones(len(items), dtype=np.float32)
    rows = np.arange(n_items, dtype=np.int64)
    ones = np.ones(n_items, dtype=np.float32)
    starts = np.arange(n_items + 1, dtype=np.int64)
    item_bags = sparse.csr_array((ones, rows, starts), shape=(n_items, n_items))
    return Dataset(
        schema=Schema(
            user_id="user_id",
            item_id="item_id",
            user=Features(features=(History(),)),
            item=Features(features=(Categorical(column="item_id"),)),
        ),
        vocabulary=Vocabulary(spaces={}, n_rows=n_items),
        user_ids=np.arange(USERS),
        item_ids=rows,
        user_bags=sparse.csr_array((USERS, n_items), dtype=np.float32),
        item_bags=item_bags,
        interactions=HeldInteractions(
            sparse.csr_array((weights, items, indptr), shape=(USERS, n_items))
        ),
        history_rows=rows,
        pasts={"history": PastItems(ids=rows, bags=item_bags)},
    )


def time_steps(model: TwoTower, batches: FoldBatches, *, steps: int) -> list[float]:
    """Run steps on ready batches; seconds each. The input pipeline is not part of it."""
    step = tf.function(model.train_step, input_signature=[spec_of(batches.dataset)])
    seconds = []
    for _, batch in zip(range(steps + 3), batches.epoch(0), strict=False):
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        start = time.perf_counter()
        step(tensors)
        seconds.append(time.perf_counter() - start)
    return seconds[3:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[10**5, 10**7])
    parser.add_argument("--embedding-dim", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    config = RunConfig(
        data=DataConfig(interactions=InteractionsTable()),
        model=ModelConfig(embedding_dim=given.embedding_dim, init="normal"),
        training=TrainingConfig(id_dropout=0.0),  # the data have no vocabulary
    )
    jobs = []
    for n_items in given.rows:
        dataset = make_dataset(n_items, seed=0)
        batches = FoldBatches.build(dataset, config.training, mined=None, seed=0)
        model = build_model(config, batches)
        for variable in [*model.variables, *model.optimizer.variables]:
            variable.assign(tf.identity(variable))  # so that no step waits for fresh memory pages
        jobs.append((model, batches))
    medians = [
        [float(np.median(time_steps(*job, steps=given.steps))) for job in jobs]
        for _ in range(given.repeats)
    ]
    ratios = [large / small for small, large in medians]
    for (small, large), ratio in zip(medians, ratios, strict=True):
        print(
            f"{given.rows[0]:,} rows: {small * 1e3:.1f} ms  "
            f"{given.rows[1]:,} rows: {large * 1e3:.1f} ms  ratio {ratio:.2f}"
        )
    print(f"median ratio: {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
