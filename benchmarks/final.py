"""What the final figures are measured on: everything but the test, and the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared, prepare


@contextmanager
def prepared_tables(config: RunConfig) -> Iterator[Prepared]:
    """Read the tables that `config` names, and split them as `fm-recall run` does."""
    with TemporaryDirectory() as folder:
        yield prepare(config, Path(folder, "prepared"))


def read_final(config: RunConfig) -> tuple[Dataset, sparse.csr_array]:
    """All interactions but the test's as a dataset, and the test's [n_users, n_items]."""
    with prepared_tables(config) as prepared:
        return final_parts(config, prepared)


def final_parts(config: RunConfig, prepared: Prepared) -> tuple[Dataset, sparse.csr_array]:
    """The same of tables that are prepared; in memory."""
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train", "validation"),
        contexts=prepared.contexts,
    )
    return dataset, every_positive(prepared.interactions("test"))
