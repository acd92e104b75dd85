"""Tune: search a run's settings on its validation split, and write the TOML file of the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipelines.config import RunConfig, load_config, read_toml
from pipelines.data.interactions import read_tables
from pipelines.data.prepare import Prepared, prepare
from pipelines.job_folder import Job, JobFolder
from pipelines.progress import Reporter
from pipelines.run import identify
from pipelines.tuning.fit_trials import TrialFits
from pipelines.tuning.search import Search
from pipelines.tuning.search_space import Dimension, choose_dimensions
from pipelines.tuning.toml_file import moved
from pipelines.tuning.trials import Searched
from towers.errors import ConfigError


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
    """Search the settings of the TOML file `path`, and keep the trials in the folder `out`.

    The first trial is the configuration as it stands, so that the best is never worse than it.
    Interrupted, the same call goes on from the last finished epoch; with more `trials`, it adds to
    those that are there. Each trial is fitted as a run's round 0, without mined negatives.

    Args:
        path: the run's TOML file; its tables are read once, and the test split is not looked at.
        out: a new folder, or that of the same search.
        trials: how many trials to have in the end.
        minutes: after how long to stop, once the epoch under way is done; None: not before the
            last trial.
        only: dotted names of the settings to search; by default, all but the dimension.
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
    fits = TrialFits(config, _prepare(config, reporter), folder=out)
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
    """Say what the figures and the proposals of a search depend on."""
    searched = {dimension.name: dimension.among for dimension in dimensions}
    return identify(config, without=("name", "index", "export")) | {"search": searched}


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


def _prepare(config: RunConfig, reporter: Reporter) -> Prepared:
    """Read, check and split the tables, and drop the test split."""
    with reporter.stage("read and check"):
        tables = read_tables(config)
    for line in tables.report.lines():
        reporter.say(f"  {line}")
    with reporter.stage("split"):
        prepared = prepare(tables, config)
    n_train, n_validation = len(prepared.train), len(prepared.validation)
    if n_validation == 0:
        raise ConfigError(
            "split.validation_fraction: expected validation interactions, for trials are compared "
            f"on them, received none beside {n_train:,} for training; raise it"
        )
    reporter.say(f"  {n_train:,} train, {n_validation:,} validation")
    return dataclasses.replace(prepared, test=prepared.test.iloc[:0])
