"""Fit the model of a trial, with its own settings, on the training split of the search."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from collections.abc import Callable
from pathlib import Path

from pipelines.config import RunConfig
from pipelines.data.blocks import sample_users
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.training.fit import STATE, Fit, FitState, Record, fit
from pipelines.training.folds import FoldBatches

OnEpoch = Callable[[Record], None]


class TrialFits:
    """Fits one trial after another, as round 0 of a run does with validation held out."""

    def __init__(self, config: RunConfig, prepared: Prepared, *, folder: Path) -> None:
        """Take the original configuration, the data, and the folder that keeps a fit's state.

        The test interactions are not used.
        """
        self._config, self._prepared = config, prepared
        self._fits, self._logs = folder / ".fits", folder / "logs"
        self._data = self._dataset(config)
        self._validation = sample_users(
            prepared.interactions("validation"),
            limit=config.evaluation.validation_users,
            seed=config.seed,
        )

    @property
    def hardest(self) -> int:
        """The default of `training.negatives.hardest` for these data."""
        training = self._config.training
        negatives = dataclasses.replace(training.negatives, hardest=None)
        training = dataclasses.replace(training, negatives=negatives)
        return FoldBatches.build(self._data, training, mined=None, seed=self._config.seed).hardest

    def records(self, number: int, config: RunConfig) -> list[Record]:
        """The figures of the epochs that an interrupted trial has finished."""
        return FitState.load(self._directory(number, config) / STATE).records

    def fit(self, number: int, config: RunConfig, *, on_epoch: OnEpoch) -> None:
        """Fit a trial, from its last finished epoch on; call `on_epoch` after each new epoch.

        Only the state of the trial under way is kept.

        Raises:
            TrainingError: training diverged.
        """
        directory = self._directory(number, config)
        self.forget(but=directory)
        gc.collect()  # a Keras model is in a reference cycle, and would stay in memory
        job = Fit(
            dataset=self._data if config.schema == self._data.schema else self._dataset(config),
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=self._validation,
            directory=directory,
            logs=self._logs / f"trial-{number}",
            on_epoch=on_epoch,
        )
        fit(job, Reporter())

    def forget(self, *, but: Path | None = None) -> None:
        """Remove the state of every fit except `but`."""
        for directory in self._fits.glob("*"):
            if directory != but:
                shutil.rmtree(directory)

    def _directory(self, number: int, config: RunConfig) -> Path:
        """The folder of a fit's state; other settings have another folder."""
        return self._fits / f"trial-{number}-{config.fingerprint()}"

    def _dataset(self, config: RunConfig) -> Dataset:
        return assemble_dataset(
            config.schema,
            users=self._prepared.users,
            items=self._prepared.items,
            interactions=self._prepared.interactions("train"),
        )
