"""The search of `tune`: one trial after the other, with what is known so far always on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import RunConfig, parse_config
from pipelines.progress import Reporter
from pipelines.training.fit import Record
from pipelines.tuning.fit_trials import TrialFits
from pipelines.tuning.search_space import Dimension, distributions, settings_of
from pipelines.tuning.study import Study, Watch
from pipelines.tuning.toml_file import Toml, changed, write_toml
from pipelines.tuning.trials import BEST, TRIALS, Searched, Trial, best_of, write_trials
from towers.errors import TrainingError


class _OutOfTimeError(Exception):
    """The time is up in the middle of a trial."""


class Search:
    """Runs the trials that a search still has to do."""

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
        """Take the configuration, its TOML as it reads in the folder `out`, and what to search."""
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
        """Run trials until there are `trials`, or time is up.

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
            self._reporter.say(f"Time is up; the same command goes on with trial {number}")
        return self._finish()

    def _run_trial(self) -> None:
        """Run a trial, say how it went, and write what is known so far."""
        trial = self._study.run_trial(self._fit)
        self._fits.forget()
        best = self._write()
        so_far = f"  best {best.value:.4f} (trial {best.number})" if best else ""
        line = f"{trial.describe(self._metric)}{so_far}  {trial.describe_settings()}"
        self._reporter.say(line)

    def _fit(self, number: int, settings: Mapping[str, Any], watch: Watch) -> None:
        """Fit a trial; its epochs from before an interruption are watched again."""
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
        """The TOML of a trial, as it reads in the search's folder."""
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
        """Write what was found, if anything was."""
        trials = self._study.trials
        if not trials or self._write() is None:
            why = "the time was up before the first ended"
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
    """What the TOML file of the best says above its settings."""
    first, states = trials[0], Counter(trial.state for trial in trials)
    stood = f"{first.value:.4f}" if first.state == "complete" else first.state
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return [
        "The settings that `fm-recall tune` found best on the validation split.",
        f"validation {metric}: {best.value:.4f} (trial {best.number}); as it stood: {stood}",
        f"trials: {counts}",
    ]
