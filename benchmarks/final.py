"""What the final figures are measured on: everything but the test, and the test."""

from __future__ import annotations

from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset, build_dataset
from pipelines.data.interactions import read_tables
from pipelines.data.prepare import Prepared, prepare


def read_final(config: RunConfig) -> tuple[Dataset, sparse.csr_array]:
    """Read the tables that `config` names, and split them as `fm-recall run` does."""
    return final_parts(config, prepare(read_tables(config), config))


def final_parts(config: RunConfig, prepared: Prepared) -> tuple[Dataset, sparse.csr_array]:
    """All interactions but the test's as a dataset, and the test's [n_users, n_items]."""
    dataset = build_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.everything_but_test,
    )
    return dataset, every_positive(prepared.interactions("test"))
