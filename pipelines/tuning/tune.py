"""Tune: search hyperparameters on the validation split, and write the TOML file of the best."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.config import RunConfig, load_config, parse_config, read_toml
from pipelines.data.engines import choose_engine
from pipelines.data.prepare import Prepared, prepare
from pipelines.job_folder import Job, JobFolder
from pipelines.progress import Reporter
from pipelines.run import identify
from pipelines.training.fit import Record
from pipelines.tuning.fit_trial import TrialFits
from pipelines.tuning.rewrite_toml import Toml, changed, moved, write_toml
from pipelines.tuning.search_space import Dimension, choose_dimensions, distributions, settings_of
from pipelines.tuning.study import Study, Watch
from pipelines.tuning.trials import BEST, TRIALS, Searched, Trial, best_of, write_trials
from towers.errors import ConfigError, TrainingError


def tune(
    path: str | Path,
    out: str | Path,
    *,
    trials: int = 20,
    minutes: float | None = None,
    only: Sequence[str] = (),
    dims: bool = False,
    reporter: Reporter | None = None,
) -> Searched:
    """Search the hyperparameters of the run `path`, and keep the trials in the folder `out`.

    The first trial has the configuration of the file, so that the best is never worse than it.
    Interrupted, the same call goes on from the last finished epoch; with more `trials`, it adds to
    those that exist. Each trial is fitted as round 0 of a run, without mined negatives.

    Args:
        path: the run's TOML file; its tables are read once, and the test split is not used.
        out: a new folder, or that of the same search.
        trials: how many trials to have in the end.
        minutes: stop after the epoch in which this time is over; None: after the last trial.
        only: dotted names of the hyperparameters; by default, all but the embedding dimension.
        dims: whether to search the embedding dimension too.
        reporter: shows progress; silent by default.

    Raises:
        ConfigError: a setting or the folder cannot be used, or another process works in it.
        DataError: rows break the rules of their table.
        TrainingError: no trial could be completed.
    """
    path, out, reporter = Path(path), Path(out), reporter or Reporter()
    config = load_config(path)
    dimensions = choose_dimensions(config, only=only, dims=dims)
    _check_request(config, trials=trials, minutes=minutes)
    folder = JobFolder(path=out, job=identify_search(config, dimensions))
    folder.check()
    with TemporaryDirectory(prefix="fm-recall-tune-") as scratch:
        prepared = _prepare(config, Path(scratch, "prepared"), reporter)
        fits = TrialFits(config, prepared, folder=out, reporter=reporter)
        reporter.say("What is searched, on the validation split:")
        for dimension in dimensions:
            reporter.say(f"  {dimension.describe()}")
        with folder.claim():
            search = Search(
                config,
                moved(read_toml(path), path.parent, target=out),
                out=out,
                dimensions=dimensions,
                fits=fits,
                reporter=reporter,
            )
            return search.run(trials, minutes=minutes)


def identify_search(config: RunConfig, dimensions: Sequence[Dimension]) -> Job:
    """What the figures of a search and the settings that it samples depend on."""
    searched = {dimension.name: dimension.among for dimension in dimensions}
    apart = ("name", "index", "export", "tracking", "rank")
    return identify(config, without=apart) | {"search": searched}


def _check_request(config: RunConfig, *, trials: int, minutes: float | None) -> None:
    """Refuse a search that cannot be done."""
    if config.split.validation_fraction == 0.0:
        raise ConfigError(
            "split.validation_fraction: expected more than 0, for trials are compared on the "
            "validation split, received 0; set it, for example to 0.1"
        )
    if trials < 1:
        raise ConfigError(f"--trials: expected at least 1, received {trials}")
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes: expected more than 0, received {minutes:g}")


def _prepare(config: RunConfig, folder: Path, reporter: Reporter) -> Prepared:
    """Read, check and split the tables, and leave the test split out."""
    plan = choose_engine(config, asked=None, master=None)
    prepared = prepare(config, folder, plan=plan, reporter=reporter)
    counts = prepared.counts
    if counts["validation"] == 0:
        raise ConfigError(
            "split.validation_fraction: expected validation interactions, for trials are compared "
            f"on them, received none beside {counts['train']:,} for training; raise it"
        )
    return dataclasses.replace(prepared, parts=("train", "validation"))


class _OutOfTimeError(Exception):
    """The time is over in the middle of a trial."""


class Search:
    """Runs the trials of a search that are still missing."""

    def __init__(
        self,
        config: RunConfig,
        raw: Toml,
        *,
        out: Path,
        dimensions: Sequence[Dimension],
        fits: TrialFits,
        reporter: Reporter,
    ) -> None:
        """Take the configuration, its TOML with paths relative to `out`, and the search space."""
        self._raw, self._out, self._fits, self._reporter = raw, out, fits, reporter
        self._metric = config.evaluation.metric
        self._deadline = float("inf")
        start = settings_of(config, dimensions, hardest=fits.hardest)
        self._study = Study(
            out,
            distributions(dimensions, start, hardest=fits.hardest),
            start=start,
            seed=config.seed,
            warmup=max(1, config.training.epochs // 3),
        )

    def run(self, trials: int, *, minutes: float | None) -> Searched:
        """Run trials until there are `trials` of them, or the time is over.

        Raises:
            TrainingError: no trial is complete.
        """
        if minutes is not None:
            self._deadline = time.monotonic() + 60 * minutes
        if ended := len(self._study.trials):
            self._reporter.say(f"Going on with the search in {self._out}, trials ended: {ended}")
        try:
            while len(self._study.trials) < trials:
                self._check_time()
                self._run_trial()
        except _OutOfTimeError:
            number = len(self._study.trials) + 1
            self._reporter.say(f"The time is over; the same command goes on with trial {number}")
        return self._finish()

    def _run_trial(self) -> None:
        """Run a trial, print its line, and write the results so far."""
        trial = self._study.run_trial(self._fit)
        self._fits.forget()
        best = self._write()
        so_far = f"  best {best.value:.4f} (trial {best.number})" if best else ""
        line = f"{trial.describe(self._metric)}{so_far}  {trial.describe_settings()}"
        self._reporter.say(line)

    def _fit(self, number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        """Fit a trial; the study first sees again the epochs from before an interruption."""
        config = parse_config(self._toml(number, settings), folder=self._out, where=BEST)
        records = self._fits.records(number, config)
        if records:
            self._reporter.say(f"Going on with trial {number}, epochs done: {len(records)}")
        with self._reporter.bar(f"trial {number}", config.training.epochs) as advance:

            def see(record: Record) -> None:
                advance(1)
                watch(int(record["epoch"]), record[self._metric], record["seconds"])

            def see_and_check_time(record: Record) -> None:
                see(record)
                self._check_time()

            for record in records:
                see(record)
            self._fits.fit(number, config, on_epoch=see_and_check_time)

    def _toml(self, number: int, settings: Mapping[str, Any]) -> Toml:
        """The TOML of a trial, with paths relative to the search's folder."""
        return self._raw if number == 1 else changed(self._raw, settings)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise _OutOfTimeError

    def _write(self) -> Trial | None:
        """Write the table of trials and, where one is complete, the TOML file of the best."""
        trials = self._study.trials
        write_trials(self._out / TRIALS, trials, metric=self._metric)
        best = next(iter(best_of(trials)), None)
        if best is not None:
            toml = self._toml(best.number, best.settings)
            comment = _comment(trials, best, metric=self._metric)
            write_toml(self._out / BEST, toml, comment=comment)
        return best

    def _finish(self) -> Searched:
        """Write and return the results.

        Raises:
            TrainingError: no trial is complete.
        """
        trials = self._study.trials
        if not trials or self._write() is None:
            why = "the time was over before the first ended"
            if trials:
                why = f"all {len(trials)} failed, the first with this: {trials[0].note}"
            raise TrainingError(
                f"{self._out}: expected a complete trial, received none, for {why}; the same "
                "command goes on, with more --trials or --minutes"
            )
        return Searched(
            metric=self._metric,
            trials=tuple(trials),
            importance=self._study.importance(),
            path=self._out / BEST,
        )


def _comment(trials: Sequence[Trial], best: Trial, *, metric: str) -> list[str]:
    """The comment above the settings in the TOML file of the best trial."""
    first, states = trials[0], Counter(trial.state for trial in trials)
    stood = f"{first.value:.4f}" if first.state == "complete" else first.state
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return [
        "The settings that `fm-recall tune` found best on the validation split.",
        f"validation {metric}: {best.value:.4f} (trial {best.number}); as it stood: {stood}",
        f"trials: {counts}",
    ]
