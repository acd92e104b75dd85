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
from pipelines.training.choose_start import choose_start, powers_of, settled, with_powers
from pipelines.training.fit import STATE, Fit, FitState, Record, fit
from pipelines.training.folds import FoldBatches
from pipelines.training.initialize import is_placed, start_vectors
from pipelines.training.measure_context import validation_moments
from pipelines.training.not_yet import not_yet

OnEpoch = Callable[[Record], None]


class TrialFits:
    """Fits one trial after another, as round 0 of a run does with validation held out."""

    def __init__(
        self, config: RunConfig, prepared: Prepared, *, folder: Path, reporter: Reporter
    ) -> None:
        """Take the original configuration, the data, and the folder that keeps a fit's state.

        The start is chosen once, for all trials. The test interactions are not used.
        """
        self._config, self._prepared = config, prepared
        self._fits, self._logs = folder / ".fits", folder / "logs"
        self._data = self._dataset(config)
        self._validation = sample_users(
            prepared.interactions("validation"),
            limit=config.evaluation.validation_users,
            seed=config.seed,
        )
        self._moments = validation_moments(prepared, self._validation, config=config)
        self._not_yet = not_yet(prepared, "validation", config=config)
        self._powers = powers_of(config)
        if is_placed(config):
            self._powers = choose_start(
                settled(config),
                self._data,
                spectral=start_vectors(self._data, config, reporter=reporter),
                validation=self._validation,
                not_yet=self._not_yet,
                reporter=reporter,
            )

    @property
    def hardest(self) -> int:
        """The default of `training.negatives.hardest` for these data."""
        training = self._config.training
        negatives = dataclasses.replace(training.negatives, hardest=None)
        training = dataclasses.replace(training, negatives=negatives)
        return FoldBatches.build(self._data, training, mined=None, seed=self._config.seed).hardest

    def records(self, number: int, config: RunConfig) -> list[Record]:
        """The figures of the epochs that an interrupted trial has finished, without its start."""
        records = FitState.load(self._directory(number, config) / STATE).records
        return [record for record in records if record["epoch"]]

    def fit(self, number: int, config: RunConfig, *, on_epoch: OnEpoch) -> None:
        """Fit a trial, from its last finished epoch on; call `on_epoch` after each new epoch.

        Only the state of the trial under way is kept.

        Raises:
            TrainingError: training diverged.
        """
        directory = self._directory(number, config)
        self.forget(but=directory)
        gc.collect()  # a Keras model is in a reference cycle, and would stay in memory
        config = with_powers(settled(config), **self._powers)
        job = Fit(
            dataset=self._data.with_schema(config.schema),
            config=config,
            epochs=config.training.epochs,
            mined=None,
            validation=self._validation,
            moments=self._moments,
            not_yet=self._not_yet,
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
            contexts=self._prepared.contexts,
            available=self._prepared.available,
        )
