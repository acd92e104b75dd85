"""The study of a search: samples settings, prunes trials, and keeps the trials that have ended.

A trial is kept when it has ended, as one line of a journal. Which settings are sampled depends only
on the trials that are kept, the seed and the number of the trial, so an interrupted search samples
the settings of its unfinished trial again.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import PercentilePruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipelines.tuning.search_space import Distribution, nearest, rounded
from pipelines.tuning.trials import Trial
from towers.errors import TrainingError

JOURNAL = "journal.log"
"""The file in a search's folder that keeps the trials that ended."""

RANDOM_TRIALS = 5
"""Trials that are sampled at random, before the sampler (TPE) learns from their figures."""

FEWEST_TO_PRUNE = 4
"""The number of complete trials before any trial is pruned."""

KEPT_PERCENT = 70.0
"""A trial is pruned if, by the same epoch, this share of the complete trials had a better figure.
Complete trials were not pruned themselves, so their median would prune what only starts slowly."""

FEWEST_TO_JUDGE = 10
"""The number of complete trials before importances are estimated; fewer show only chance."""

Watch = Callable[[int, float, float], None]
"""Called after each epoch, in order, with its number from 1, its validation figure and seconds."""

Objective = Callable[[int, Mapping[str, Any], Watch], None]
"""Fits the trial of a number (from 1) with some settings, and calls `Watch` after each epoch."""

STATES: dict[TrialState, Any] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Study:
    """The trials of one search, kept in a folder."""

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, Distribution],
        *,
        start: Mapping[str, Any],
        seed: int,
        warmup: int,
    ) -> None:
        """Open the study in `folder`, or begin one.

        Args:
            folder: the folder of the search, which this process holds.
            space: the distribution of each hyperparameter.
            start: the settings of the first trial.
            seed: decides the sampled settings, given the trials so far.
            warmup: no trial is pruned before it has done so many epochs.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._start, self._seed, self._warmup = space, start, seed, warmup
        self._kept = optuna.create_study(
            storage=_open_journal(folder.resolve() / JOURNAL),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
        )

    @property
    def trials(self) -> list[Trial]:
        """The trials that have ended, in their order."""
        return [self._trial(frozen) for frozen in self._frozen]

    def run_trial(self, objective: Objective) -> Trial:
        """Run the next trial and keep it; settings that a trial had before are not fitted again."""
        ended = self.trials
        number = len(ended) + 1
        study = self._replica(number)
        trial = study.ask({**self._space})
        settings = self._settings(number, trial.params)
        same = next((found for found in ended if found.settings == settings), None)
        if same is not None:
            frozen = copy.deepcopy(self._frozen[same.number - 1])
            frozen.set_user_attr("seconds", 0.0)
            frozen.set_user_attr("note", f"the same as trial {same.number}")
        else:
            _run(objective, study, trial, settings=settings)
            frozen = study.trials[-1]
        self._kept.add_trial(frozen)
        return self.trials[-1]

    def importance(self) -> dict[str, float]:
        """Estimate the importance of each hyperparameter; empty with too few trials to tell.

        PED-ANOVA: Watanabe, Bansal and Hutter, 2023.
        """
        values = [trial.value for trial in self.trials if trial.state == "complete"]
        if len(values) < FEWEST_TO_JUDGE or len(set(values)) == 1 or len(self._space) == 1:
            return {}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.3)
        return get_param_importances(self._kept, evaluator=evaluator)

    @property
    def _frozen(self) -> list[FrozenTrial]:
        return self._kept.get_trials(deepcopy=False)

    def _replica(self, number: int) -> optuna.Study:
        """A study in memory with the trials so far, which samples the trial of this number."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            direction="maximize",
            sampler=TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS),
            pruner=PercentilePruner(KEPT_PERCENT, FEWEST_TO_PRUNE, self._warmup),
        )
        study.add_trials(self._frozen)
        if number == 1:
            study.enqueue_trial(
                {name: nearest(self._start[name], space) for name, space in self._space.items()}
            )
        return study

    def _settings(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a trial is fitted with; all but those of the first are rounded."""
        if number == 1:
            return dict(self._start)
        return {name: rounded(params[name]) for name in self._space}

    def _trial(self, frozen: FrozenTrial) -> Trial:
        """Read one of the kept trials."""
        return Trial(
            number=frozen.number + 1,
            state=STATES[frozen.state],
            settings=self._settings(frozen.number + 1, frozen.params),
            curve=tuple(value for _, value in sorted(frozen.intermediate_values.items())),
            seconds=frozen.user_attrs["seconds"],
            note=frozen.user_attrs.get("note", ""),
        )


def _run(
    objective: Objective, study: optuna.Study, trial: optuna.Trial, *, settings: Mapping[str, Any]
) -> None:
    """Run a trial until it is complete, is pruned, or fails because training diverges."""
    figures: list[float] = []
    trial.set_user_attr("seconds", 0.0)

    def watch(epoch: int, figure: float, seconds: float) -> None:
        figures.append(figure)
        trial.set_user_attr("seconds", trial.user_attrs["seconds"] + seconds)
        trial.report(figure, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        objective(trial.number + 1, settings, watch)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        trial.set_user_attr("note", str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, max(figures))


def _open_journal(path: Path) -> JournalStorage:
    """Open a journal, without the lock and the half line that a killed process may have left."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink()
    if path.exists():
        text = path.read_bytes()
        os.truncate(path, text.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path)))
