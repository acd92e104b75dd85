"""The one split of a data set that every row trains on and is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.data import prepare_gowalla
from benchmarks.final import read_final
from benchmarks.peers.processes import ROOT
from pipelines.config import RunConfig, load_config
from pipelines.data.blocks import every_positive, left_out
from pipelines.data.dataset import Dataset
from pipelines.evaluation.evaluate import Evaluation, Scorer, evaluate
from pipelines.evaluation.left_out import LeftOut
from towers.features.vocabulary import Tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The training part, the test part, and the features, with rows numbered as our own."""

    config: RunConfig
    dataset: Dataset
    """Everything but the test interactions, as our last fit sees it."""
    test: sparse.csr_array
    """[n_users, n_items]; nonzero where the user should be recommended the item."""

    @property
    def cold_users(self) -> NDArray[np.bool_]:
        """Which users [n_users] have no training interaction."""
        return np.asarray(self.dataset.interactions.user_counts == 0)

    def evaluate(self, scorer: Scorer) -> Evaluation:
        """Measure a scorer on the test part, as `fm-recall run` measures its own."""
        interactions, config = self.dataset.interactions, self.config.evaluation
        users = np.arange(interactions.shape[0])
        return evaluate(
            scorer,
            train=every_positive(interactions),
            left_out=LeftOut(left_out(interactions, users, what=config.leave_out)),
            test=self.test,
            config=config,
        )

    def write(self, folder: Path) -> None:
        """Write what a worker reads: the training matrix, and the features without ids."""
        folder.mkdir(parents=True, exist_ok=True)
        train = every_positive(self.dataset.interactions).copy()
        train.data[:] = 1.0
        sparse.save_npz(folder / "train.npz", train)
        for name, bags in [("user", self.dataset.user_bags), ("item", self.dataset.item_bags)]:
            sparse.save_npz(folder / f"{name}_features.npz", self._features(bags))

    def _features(self, bags: sparse.csr_array) -> sparse.csr_array:
        """The columns of `bags` that any row has and that are not ids, numbered from 0."""
        schema = self.config.schema
        ids = [self._rows_of(f"user.{schema.user_id}"), self._rows_of(f"item.{schema.item_id}")]
        kept = np.setdiff1d(bags.indices, np.concatenate(ids))
        return sparse.csr_array(bags[:, kept])

    def _rows_of(self, space: str) -> NDArray[np.int64]:
        """The rows of a space of the feature table; none where no feature reads it."""
        found = self.dataset.vocabulary.spaces.get(space)
        if not isinstance(found, Tokens):
            return np.empty(0, dtype=np.int64)
        return np.append(found.rows, found.oov_row)


@dataclass(frozen=True)
class DataSet:
    """A data set: the TOML file that describes it."""

    path: Path

    @property
    def name(self) -> str:
        """What the results and the table call it."""
        return self.path.stem

    @cached_property
    def config(self) -> RunConfig:
        """The settings of the file."""
        return load_config(self.path)

    @cached_property
    def split(self) -> Split:
        """Read the tables and divide them."""
        self.fetch()
        dataset, test = read_final(self.config)
        return Split(config=self.config, dataset=dataset, test=test)

    def fetch(self) -> None:
        """Make Gowalla's tables where they are not there yet; others are as they are."""
        if self.name == "gowalla":
            prepare_gowalla(ROOT / "data" / "gowalla", ROOT / "build" / "data" / "gowalla")
