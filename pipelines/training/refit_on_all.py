"""The fits of a round: one with validation held out, then one on all but the test to publish."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from pipelines.config import RunConfig
from pipelines.data.blocks import Part, left_out, sample_users
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.data.recent import count_recent, trend_values
from pipelines.evaluation.left_out import LeftOut, NotYet
from pipelines.progress import Reporter
from pipelines.training.calibrate import calibrate
from pipelines.training.choose_balance import apply_balance
from pipelines.training.choose_start import choose_start, powers_of, settled, with_powers
from pipelines.training.decided import Decided
from pipelines.training.finish import finish
from pipelines.training.fit import Fit, Fitted, Record, fit, follow
from pipelines.training.initialize import is_placed, start_vectors
from pipelines.training.measure_context import AskedAt, validation_moments
from pipelines.training.mine import mine_fitted, mine_published
from pipelines.training.mix_with_start import mix_with_start
from pipelines.training.not_yet import not_yet
from pipelines.training.parent import Parent
from pipelines.training.place_features import place_features
from pipelines.training.place_newcomers import (
    measure_default_user,
    measure_newcomers,
    place_newcomers,
)
from pipelines.training.place_unchosen import measure_unchosen, place_unchosen
from pipelines.training.trend import add_trend, choose_window, with_trend
from pipelines.workers.workers import ALONE, Workers
from serving.atomic import replace_file, write_text_atomic
from serving.retrieval.retriever import Retriever
from serving.version.recent import Recent
from serving.version.store import Store
from towers.features.schema import Side
from towers.negatives import MinedNegatives

START = "start.json"
"""The file in a run's work folder that keeps the powers that were chosen."""

SPECTRAL = "spectral.npy"
"""The file beside it with the singular vectors of the training part."""

MINED = "mined.npy"
"""The file in a fit's directory with the mined negatives, for the other workers."""

FINAL = "final"
"""The name of the directory of a fit that is published."""

UNDECIDED = Decided()
"""Where there is no validation part."""


class RoundFits:
    """Fits the models of each round, and mines their negatives; interrupted fits are resumed."""

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        *,
        store: Store,
        work: Path,
        reporter: Reporter,
        parent: Parent | None,
        workers: Workers = ALONE,
    ) -> None:
        """Take the data, the store to mine from, and the folder that keeps the fits' state.

        With a parent, every fit starts from its vectors, and the first round mines with it.
        Without, the start is chosen now; `config` has the choice.
        """
        self._prepared, self._store = prepared, store
        self._work, self._reporter, self._parent = work, reporter, parent
        self._workers = workers
        self._searched: dict[int, Fitted] = {}
        self.config = settled(config)
        if parent is None and is_placed(config):
            self.config = self._choose_start()
        self.config = with_powers(self.config, **powers_of(self.config))

    @cached_property
    def final_data(self) -> Dataset:
        """The data of a published model: all but the test, or the training split without refit."""
        if not self.config.training.refit_on_all:
            return self._search_data
        return self._dataset(*self._final_parts)

    @cached_property
    def recent(self) -> Recent | None:
        """How often items were chosen of late, as of the end of what a published model knows.

        The window is chosen on validation. None where none is held out by time.
        """
        evaluation = self.config.evaluation
        if not self._is_by_time:
            return None
        users, what = np.flatnonzero(np.diff(self._validation.indptr)), evaluation.leave_out
        window = choose_window(
            self._prepared.stored("train"),
            left_out=LeftOut(
                left_out(self._prepared.interactions("train"), users, what=what), self._not_yet
            ),
            validation=self._validation,
            metric=evaluation.metric,
        )
        if window is None:
            return None
        until, counts = count_recent(self._prepared.stored(*self._final_parts), [window])
        return Recent(counts=counts[0], window=window, until=until)

    def published(self, fitted: Fitted) -> tuple[Dataset, dict[Side, pd.DataFrame], Recent | None]:
        """What is published of a fit: its data and tables with the trend, and what came of late."""
        data, tables, recent = self.final_data, self._prepared.tables, self.recent
        if fitted.trend is None or recent is None:
            nothing = np.full(len(data.item_ids), np.nan, dtype=np.float32)
            return *with_trend(data, tables, nothing), recent
        window, stored = fitted.trend.window, self._prepared.stored(*self._final_parts)
        _, counts = count_recent(stored, [window])
        values = trend_values(counts[0], stored.item_counts)
        recent = dataclasses.replace(recent, trend_window=window)
        return *with_trend(data, tables, values), recent

    @cached_property
    def _search_data(self) -> Dataset:
        """The data of a fit while validation interactions are held out."""
        return self._dataset("train")

    @cached_property
    def _validation(self) -> sparse.csr_array:
        """The validation positives of the users that decide, [n_users, n_items]."""
        return sample_users(
            self._prepared.interactions("validation"),
            limit=self.config.evaluation.validation_users,
            seed=self.config.seed,
        )

    @cached_property
    def _not_yet(self) -> NotYet | None:
        """What is not there yet when these users ask."""
        return not_yet(self._prepared, "validation", config=self.config)

    @cached_property
    def _moments(self) -> AskedAt | None:
        """When these users ask; None without a context."""
        return validation_moments(self._prepared, self._validation, config=self.config)

    def _choose_start(self) -> RunConfig:
        """The settings with the powers of the start, which are kept to be found after a crash."""
        kept = self._work / START
        if kept.exists():
            return with_powers(self.config, **json.loads(kept.read_text(encoding="utf-8")))
        powers = powers_of(self.config)
        if self._prepared.counts["validation"]:
            with self._reporter.stage("choose the start"):
                data = self._dataset("train")
                spectral = start_vectors(data, self.config, reporter=self._reporter)
                powers = choose_start(
                    self.config,
                    data,
                    spectral=spectral,
                    validation=self._validation,
                    not_yet=self._not_yet,
                    reporter=self._reporter,
                )
            np.save(self._work / SPECTRAL, spectral)
        write_text_atomic(kept, json.dumps(powers))
        return with_powers(self.config, **powers)

    @property
    def _final_parts(self) -> tuple[Part, ...]:
        """The parts that a published model knows."""
        return ("train", "validation") if self.config.training.refit_on_all else ("train",)

    @property
    def _is_by_time(self) -> bool:
        """Whether there is a validation part, of what came after the training part."""
        has_times = self._prepared.stored().has_times and self.config.split.by != "random"
        return has_times and self._prepared.counts["validation"] > 0

    def _dataset(self, *parts: Part) -> Dataset:
        return assemble_dataset(
            self.config.schema,
            users=self._prepared.users,
            items=self._prepared.items,
            interactions=self._prepared.interactions(*parts),
            earlier=self._parent.vocabulary if self._parent else None,
            contexts=self._prepared.contexts,
            available=self._prepared.available,
        )

    def fit(self, number: int, *, versions: Sequence[int]) -> tuple[Fitted, tuple[Record, ...]]:
        """Fit what round `number` publishes.

        Args:
            number: from 0.
            versions: the versions that the earlier rounds have published.

        Returns:
            The fit to publish, and the epochs that were validated, which are those of another fit
            where the published model is refitted with the validation interactions.
        """
        training = self.config.training
        if not self._prepared.counts["validation"]:
            fitted = self._fit_final(number, epochs=training.epochs, versions=versions)
            return fitted, fitted.records
        self._reporter.say("  with validation held out")
        searched = self._search(number, versions=versions)
        if number < training.rounds:
            self._searched[number] = searched  # the next round mines with it
        if not training.refit_on_all:
            return searched, searched.records
        epochs, records, decided = searched.best_epoch, searched.records, searched.decided
        del searched  # frees its model before the other is fitted
        self._reporter.say(f"  on all but the test, for {epochs} epochs")
        fitted = self._fit_final(number, epochs=epochs, versions=versions, decided=decided)
        return fitted, records

    def _search(self, number: int, *, versions: Sequence[int]) -> Fitted:
        """Fit with validation held out, which decides epochs, what is fair to cold items, trend."""
        if number in self._searched:
            return self._searched[number]
        spectral = self._work / SPECTRAL
        job = Fit(
            dataset=self._search_data,
            config=self.config,
            epochs=self.config.training.epochs,
            mined=self._mine_search(number, versions),
            validation=self._validation,
            moments=self._moments,
            not_yet=self._not_yet,
            directory=self._work / f"round-{number}" / "search",
            logs=self._logs(number, "search"),
            parent=self._parent,
            workers=self._workers,
            spectral=spectral if spectral.exists() else None,
        )
        is_by_time, stored = self._is_by_time, self._prepared.stored("train")
        has_trend = is_by_time and self.config.schema.trend is not None
        fitted, trend = finish(
            self._fit(job), job, self._reporter, stored=stored if has_trend else None
        )
        fitted = calibrate(fitted, job, self._reporter)
        term = np.zeros(len(job.dataset.item_ids), dtype=np.float32)
        if trend is not None:
            _, counts = count_recent(stored, [trend.window])
            term = np.float32(trend.weight) * trend_values(counts[0], stored.item_counts)
        decided = Decided(
            trend=trend,
            unchosen=measure_unchosen(fitted, job, term=term) if is_by_time else None,
            newcomer_scale=measure_newcomers(fitted, job, term=term),
            default_user_scale=measure_default_user(fitted, job, term=term),
        )
        return self._place(fitted, job, decided)

    def _fit(self, job: Fit) -> Fitted:
        """Fit, with the other workers, if there are some; they are told what `follow` needs."""
        told: dict[str, Any] = {"directory": job.directory.relative_to(self._work).as_posix()}
        if self._workers.count > 1 and job.mined is not None:
            told["mined"] = job.mined.provenance()
            job.directory.mkdir(parents=True, exist_ok=True)
            with replace_file(job.directory / MINED) as path, path.open("wb") as file:
                np.save(file, job.mined.items)
        self._workers.tell(told | {"epochs": job.epochs})
        return fit(job, self._reporter)

    def follow(self, told: Mapping[str, Any]) -> None:
        """Train this worker's share of the fit that the chief has told of."""
        directory, mined = self._work / told["directory"], None
        if "mined" in told:
            first, last = told["mined"]["ranks"]
            items = np.load(directory / MINED, mmap_mode="r")
            mined = MinedNegatives(
                items=items, version=told["mined"]["version"], ranks=(first, last)
            )
        job = Fit(
            dataset=self.final_data if directory.name == FINAL else self._search_data,
            config=self.config,
            epochs=told["epochs"],
            mined=mined,
            validation=None,
            directory=directory,
            logs=directory,
            workers=self._workers,
        )
        follow(job, self._reporter)

    def _place(self, fitted: Fitted, job: Fit, decided: Decided) -> Fitted:
        """Add what training could not see: the trend, and where those belong who have no click."""
        reporter = self._reporter
        fitted = add_trend(fitted, job.dataset, trend=decided.trend, reporter=reporter)
        fitted = place_unchosen(fitted, job, reporter, placed=decided.unchosen)
        return place_newcomers(
            fitted,
            job,
            reporter,
            newcomers=decided.newcomer_scale,
            default_user=decided.default_user_scale,
        )

    def _fit_final(
        self, number: int, *, epochs: int, versions: Sequence[int], decided: Decided = UNDECIDED
    ) -> Fitted:
        """Fit on everything but the test, with what validation has decided."""
        job = Fit(
            dataset=self.final_data,
            config=self.config,
            epochs=epochs,
            mined=self._mine_published(number, versions),
            validation=None,
            directory=self._work / f"round-{number}" / FINAL,
            logs=self._logs(number, "final"),
            parent=self._parent,
            workers=self._workers,
        )
        reporter = self._reporter
        fitted = mix_with_start(self._fit(job), job, reporter, share=decided.start_share)
        fitted = place_features(fitted, job, reporter, penalty=decided.feature_penalty)
        fitted = apply_balance(fitted, job, reporter, balance=decided.balance)
        fitted = calibrate(fitted, job, reporter, weight=decided.unknown_item_weight)
        return self._place(fitted, job, decided)

    def _mine_search(self, number: int, versions: Sequence[int]) -> MinedNegatives | None:
        """Mine with the previous round's model that was fitted without validation, too."""
        if number == 0:
            return self._mine_parent(self._search_data)
        if not self._mines:
            return None
        previous = self._search(number - 1, versions=versions).model
        with self._reporter.bar("mine", len(self._search_data.user_ids)) as advance:
            return mine_fitted(
                previous,
                self._search_data,
                ranks=self.config.training.negatives.mined_ranks,
                version=versions[number - 1],
                seed=self.config.seed,
                advance=advance,
            )

    def _mine_published(self, number: int, versions: Sequence[int]) -> MinedNegatives | None:
        """Mine with the version that the previous round published."""
        if number == 0:
            return self._mine_parent(self.final_data)
        if not self._mines:
            return None
        previous = Retriever.open(self._store.root, version=versions[number - 1])
        with self._reporter.bar("mine", previous.catalogue("user").size) as advance:
            return mine_published(
                previous,
                ranks=self.config.training.negatives.mined_ranks,
                seed=self.config.seed,
                advance=advance,
            )

    def _mine_parent(self, dataset: Dataset) -> MinedNegatives | None:
        """Mine with the parent's vectors, for the users, histories and items of the new data."""
        if self._parent is None or not self._mines:
            return None
        with self._reporter.bar("mine", len(dataset.user_ids)) as advance:
            return mine_fitted(
                self._parent.model(dataset.vocabulary),
                dataset,
                ranks=self.config.training.negatives.mined_ranks,
                version=self._parent.version,
                seed=self.config.seed,
                advance=advance,
            )

    @property
    def _mines(self) -> bool:
        return self.config.training.negatives.mined > 0

    def _logs(self, number: int, phase: str) -> Path:
        return self._store.root / "logs" / self._work.name.strip(".") / f"round-{number}-{phase}"
